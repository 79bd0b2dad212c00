"""Greedy generation of a fixed number of tokens after prompts of token ids, all as one batch."""
from common import answer, clock, job, model, padded, rows

import torch

network = model().eval()
network.generation_config.eos_token_id = None  # no text ends
ids, mask = padded([row["prompt"] for row in rows(job["prompts"])], left=True)


def write(tokens):
    with torch.inference_mode():
        return network.generate(input_ids=ids, attention_mask=mask, max_new_tokens=tokens,
                                do_sample=False, pad_token_id=0)


for _ in range(2):
    write(job["tokens"])
seconds = clock()
generations = job.get("generations", 1)
for _ in range(generations):
    new = write(job["tokens"])[:, ids.shape[1]:]
answer(done=generations * new.numel(), seconds=seconds(), first=new[0].tolist())
