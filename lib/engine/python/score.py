"""Token signals of the answers in a job folder that musc wrote: ids in, a file of JSON lines a process out.

    torchrun --nproc_per_node 2 score.py JOB

JOB/settings.json          model, dtype, rows_per_pass
JOB/requests.safetensors   ids I32 [tokens], starts I64 [5 rows + 1]: the clean, noised and empty prompt of each row, then
                           its two answers

Row i is scored by process i mod world. Writes JOB/signals-RANK-of-WORLD.jsonl, a line a row; run again, it goes on behind
the last whole line. A file is complete when JOB/signals-RANK-of-WORLD.done stands beside it.
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

job = Path(sys.argv[1])
settings = json.loads((job / "settings.json").read_text())
world = int(os.environ.get("WORLD_SIZE", "1"))
rank = int(os.environ.get("RANK", "0"))
device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
data = load_file(job / "requests.safetensors")
starts = data["starts"].tolist()
mine = range(rank, (len(starts) - 1) // 5, world)


def parts(row):
    return [data["ids"][starts[5 * row + i] : starts[5 * row + i + 1]].long() for i in range(5)]


@torch.no_grad()
def signals(rows):
    """Of each row, for both answers: seven lists of one number a token, in nats."""
    sequences, spans = [], []
    for row in rows:
        *prompts, chosen, rejected = parts(row)
        for answer in (chosen, rejected):
            for prompt in prompts:
                sequences.append(torch.cat([prompt, answer]))
                spans.append((len(prompt), answer))
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True).to(device)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in sequences], batch_first=True).to(device)
    logits = model(input_ids=ids, attention_mask=mask).logits
    out = []
    for at in range(0, len(sequences), 3):
        # The logits of the token before predict each token of the answer.
        logs = [logits[at + i, spans[at + i][0] - 1 :][: len(spans[at][1])].float().log_softmax(-1) for i in range(3)]
        clean, noised, empty = logs
        token = spans[at][1].to(device)[:, None]
        p, q = clean.exp(), noised.exp()
        out.append(
            {
                "logprob": clean.gather(1, token)[:, 0],
                "logprob_noised": noised.gather(1, token)[:, 0],
                "logprob_empty": empty.gather(1, token)[:, 0],
                "entropy": -(p * clean).sum(-1),
                "entropy_noised": -(q * noised).sum(-1),
                "kl": (p * (clean - noised)).sum(-1),
                "kl_reverse": (q * (noised - clean)).sum(-1),
            }
        )
    return [out[i : i + 2] for i in range(0, len(out), 2)]


def line(row, answers):
    # 7 significant digits, all that 32-bit floats hold
    short = [{name: [float(f"{x:.7g}") for x in values.tolist()] for name, values in one.items()} for one in answers]
    return json.dumps({"row": row, "chosen": short[0], "rejected": short[1]}) + "\n"


file = job / f"signals-{rank}-of-{world}.jsonl"
whole = [text for text in file.read_text().splitlines(True) if text.endswith("\n")] if file.exists() else []
per_pass = settings["rows_per_pass"]
have = len(whole) // per_pass * per_pass if len(whole) < len(mine) else len(whole)
file.write_text("".join(whole[:have]))  # passes hold the same rows as without a stop, so the numbers are the same
if have < len(mine):
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=getattr(torch, settings["dtype"]))
    model.to(device).eval()
    with file.open("a") as out:
        for at in range(have, len(mine), per_pass):
            rows = mine[at : at + per_pass]
            for row, answers in zip(rows, signals(rows)):
                out.write(line(row, answers))
            out.flush()
file.with_suffix(".done").touch()
