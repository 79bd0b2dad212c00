"""Logs one training for Weights & Biases: JSON lines on standard input, the run's facts first, then a step each.

Offline unless WANDB_MODE says otherwise; `wandb sync <folder>` uploads what an offline run wrote.
"""

import json
import os
import sys

import wandb

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

facts = json.loads(sys.stdin.readline())
run = wandb.init(resume="allow", **facts)
for line in sys.stdin:
    entry = json.loads(line)
    if "table" in entry:
        run.log({"results": wandb.Table(columns=entry["table"]["columns"], data=entry["table"]["rows"])})
        run.summary.update(entry["summary"])
    else:
        run.log(entry["values"], step=entry["step"])
run.finish()
