"""Training steps on random tokens, every position a target: all weights, or an adapter."""
from common import answer, clock, job, model

import torch

network = model(job.get("adapter"))
network.train()
optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.0)
ids = torch.randint(0, network.config.vocab_size, (job["batch"], job["length"]), device=job["device"])


def step():
    network(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


for _ in range(job["warmup"]):
    step()
seconds = clock()
for _ in range(job["steps"]):
    step()
answer(done=ids.numel() * job["steps"], seconds=seconds())
