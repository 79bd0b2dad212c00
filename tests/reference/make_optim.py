"""Ten steps of torch.optim.AdamW with clipping and transformers' cosine schedule on a quadratic: sum a/2 (w - c)^2."""
from common import FIXTURES, matrix, numbers, versions, write_json

import torch
from transformers import get_cosine_schedule_with_warmup

SETTINGS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.05, "max_norm": 1.0, "warmup_steps": 3,
            "steps": 10}

if __name__ == "__main__":
    g = torch.Generator().manual_seed(0)
    parts = {name: {k: torch.randn(shape, generator=g) for k in ("curvature", "centre", "start")}
             for name, shape in {"first": (2, 3), "second": (4,)}.items()}
    weights = {name: p["start"].clone().requires_grad_() for name, p in parts.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=SETTINGS["lr"], betas=(SETTINGS["beta1"], SETTINGS["beta2"]),
                                  eps=SETTINGS["epsilon"], weight_decay=SETTINGS["weight_decay"])
    schedule = get_cosine_schedule_with_warmup(optimizer, SETTINGS["warmup_steps"], SETTINGS["steps"])
    rows = []
    for _ in range(SETTINGS["steps"]):
        optimizer.zero_grad()
        loss = sum((p["curvature"].abs() / 2 * (weights[n] - p["centre"]) ** 2).sum() for n, p in parts.items())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(weights.values()), SETTINGS["max_norm"])
        lr = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        rows.append({"loss": numbers(loss), "gradient_norm": numbers(norm), "lr": lr,
                     "weights": {n: numbers(w.flatten()) for n, w in weights.items()}})
    for p in parts.values():
        p["curvature"] = p["curvature"].abs()
    write_json(FIXTURES / "optim" / "expected.json", {
        "versions": versions(), "settings": SETTINGS,
        "problem": {n: {k: matrix(v) for k, v in p.items()} for n, p in parts.items()}, "trajectory": rows})
