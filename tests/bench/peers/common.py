"""What the peers share. A job is one JSON object on the command line; the answer is one JSON line."""
import json
import sys
import time

job = json.loads(sys.argv[1])


def rows(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines][:job.get("count")]


def model(adapter=None):
    """The checkpoint on the job's device, in f32 or in bf16 where the job says so; with a trainable adapter (PEFT
    folder, which stays in f32) on it if given."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    dtype = torch.bfloat16 if job.get("bf16") else torch.float32
    loaded = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype).to(job["device"])
    if adapter is None:
        return loaded
    from peft import PeftModel

    return PeftModel.from_pretrained(loaded, adapter, is_trainable=True)


def padded(lists, left=False):
    """Token ids side by side, padded with 0 -> ids and mask, both [rows, longest]."""
    import torch

    longest = max(map(len, lists))
    ids = torch.zeros((len(lists), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(lists):
        at = slice(longest - len(tokens), longest) if left else slice(0, len(tokens))
        ids[row, at] = torch.tensor(tokens)
        mask[row, at] = 1
    return ids.to(job["device"]), mask.to(job["device"])


def clock():
    """A function that gives the seconds since now, until all that was asked of the device is done."""
    import torch

    def now():
        if job["device"] == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    start = now()
    return lambda: now() - start


def answer(**found):
    with open("/proc/self/status", encoding="ascii") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({**found, "peakMiB": round(peak / 1024)}))
