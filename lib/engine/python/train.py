"""Trains a LoRA adapter on a job folder that musc wrote. Everything of the method is in the folder: token ids, token
weights, reference sums, the order of the pairs and the first adapter. This script only runs the steps.

    torchrun --nproc_per_node 2 train.py JOB

JOB/settings.json       what to do (see `settings` below)
JOB/pairs.safetensors   ids I32 [tokens], starts I64 [3 pairs + 1] (prompt, chosen, rejected of each pair),
                        weights F32 [tokens] (0 on prompts), reference F32 [pairs, 3] (sums of weight x log-prob of
                        chosen and rejected, and the margin up to which a pair is a tie)
JOB/order.safetensors   row I64 [steps, batch], share F32 [steps, batch] (share of the pair in the loss of its step)
JOB/init/               the first adapter (PEFT)

Writes JOB/metrics.jsonl (a line a step), JOB/state/checkpoint-N and, last, JOB/adapter/. Run again, it goes on from the
last checkpoint.
"""

import json
import math
import os
import signal
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.utils.data import Dataset, SequentialSampler
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

job = Path(sys.argv[1])
settings = json.loads((job / "settings.json").read_text())
world = int(os.environ.get("WORLD_SIZE", "1"))
rank = int(os.environ.get("RANK", "0"))


class Pairs(Dataset):
    """The pairs in the order of training. A step is filled up to a multiple of all processes with pairs of share 0."""

    def __init__(self, step_rows):
        self.data = load_file(job / "pairs.safetensors")
        order = load_file(job / "order.safetensors")
        filler = step_rows - order["row"].shape[1]
        self.rows = torch.nn.functional.pad(order["row"], (0, filler)).flatten().tolist()
        self.shares = torch.nn.functional.pad(order["share"], (0, filler)).flatten().tolist()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        row = self.rows[place]
        prompt, chosen, rejected, end = self.data["starts"][3 * row : 3 * row + 4].tolist()
        ids, weights = self.data["ids"], self.data["weights"]

        def answer(start, stop):
            tokens = torch.cat([ids[prompt:chosen], ids[start:stop]])
            return tokens.long(), torch.cat([torch.zeros(chosen - prompt), weights[start:stop]])

        return answer(chosen, rejected), answer(rejected, end), self.data["reference"][row], self.shares[place]


def collate(items):
    """Chosen answers above rejected ones, padded on the right: ids, weights and mask [2 pairs, time]."""
    answers = [item[0] for item in items] + [item[1] for item in items if settings["loss"] != "sft"]
    pad = lambda tensors: torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    return {
        "input_ids": pad([ids for ids, _ in answers]),
        "attention_mask": pad([torch.ones_like(ids) for ids, _ in answers]),
        "weights": pad([weights for _, weights in answers]),
        "reference": torch.stack([item[2] for item in items]),
        "share": torch.tensor([item[3] for item in items]),
    }


stop_asked = False


def ask_to_stop(*_):
    global stop_asked
    stop_asked = True


signal.signal(signal.SIGTERM, ask_to_stop)


class MuscTrainer(Trainer):
    sums = None

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, **_):
        weights = inputs["weights"][:, 1:]
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
        log_probs = torch.gather(logits.float().log_softmax(-1), 2, inputs["input_ids"][:, 1:, None])[..., 0]
        sums = (log_probs * weights).sum(-1)
        share = inputs["share"]
        if settings["loss"] == "sft":
            losses, rewards = -sums, torch.zeros(2, len(share), device=share.device)
        else:
            rewards = settings["beta"] * (sums.view(2, -1) - inputs["reference"][:, :2].T)  # chosen, rejected
            margin = rewards[0] - rewards[1]
            smooth = settings["label_smoothing"]
            log_sigmoid = torch.nn.functional.logsigmoid
            losses = -(1 - smooth) * log_sigmoid(margin) - smooth * log_sigmoid(-margin)
        margin = rewards[0] - rewards[1]
        logs = torch.stack([losses, rewards[0], rewards[1], margin, (margin > inputs["reference"][:, 2]).float()])
        sums = (logs.detach() * share).sum(-1)
        used = share.repeat(len(inputs["input_ids"]) // len(share)) > 0
        logs = torch.cat([sums, inputs["attention_mask"][used].sum()[None].to(sums)])
        self.sums = logs if self.sums is None else self.sums + logs
        # Trainer takes the mean over processes and divides by the accumulated passes; shares already add up to 1.
        return (losses * share).sum() * world * self.args.gradient_accumulation_steps


class Metrics(TrainerCallback):
    """A line of metrics.jsonl a step, summed over all processes."""

    def __init__(self):
        self.file = job / "metrics.jsonl"

    def on_train_begin(self, args, state, control, **_):
        if rank == 0:  # steps behind the checkpoint are done again
            lines = self.file.read_text().splitlines(True)[: state.global_step] if self.file.exists() else []
            self.file.write_text("".join(lines))

    def on_step_begin(self, args, state, control, lr_scheduler=None, **_):
        self.rate = lr_scheduler.get_last_lr()[0]

    def on_step_end(self, args, state, control, **_):
        asked = torch.full_like(trainer.sums[:1], float(stop_asked))
        *sums, asked = trainer.accelerator.reduce(torch.cat([trainer.sums, asked]), reduction="sum").tolist()
        trainer.sums = None
        if asked and state.global_step < state.max_steps:  # all processes stop behind the same step
            control.should_save = control.should_training_stop = True
        self.step = dict(zip(["loss", "chosen_reward", "rejected_reward", "margin", "accuracy", "tokens"], sums))

    def on_log(self, args, state, control, logs=None, **_):
        if rank or "grad_norm" not in logs:
            return
        loss, tokens = self.step.pop("loss"), round(self.step.pop("tokens"))
        line = {"step": state.global_step, "steps": state.max_steps, "loss": loss, "lr": self.rate}
        line |= {"grad_norm": float(logs["grad_norm"]), "tokens": tokens}
        line |= self.step if settings["loss"] != "sft" else {}
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if not math.isfinite(loss):
            raise SystemExit(f"the loss must be finite, got {loss} at step {state.global_step}; lower lr")


steps, batch = load_file(job / "order.safetensors")["row"].shape
rows = math.ceil(batch / world)  # of a process in a step
passes = math.ceil(rows / settings["rows_per_pass"])
per_pass = math.ceil(rows / passes)
model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=getattr(torch, settings["dtype"]))
model.config.use_cache = False
model = PeftModel.from_pretrained(model, job / "init", is_trainable=True)
arguments = TrainingArguments(
    output_dir=str(job / "state"),
    max_steps=steps,
    per_device_train_batch_size=per_pass,
    gradient_accumulation_steps=passes,
    learning_rate=settings["lr"],
    lr_scheduler_type="cosine",
    warmup_steps=settings["warmup_steps"],
    optim="adamw_torch",
    adam_beta1=settings["adam"]["beta1"],
    adam_beta2=settings["adam"]["beta2"],
    adam_epsilon=settings["adam"]["eps"],
    weight_decay=settings["adam"]["weightDecay"],
    max_grad_norm=settings["adam"]["maxGradNorm"],
    gradient_checkpointing=settings["gradient_checkpointing"],
    logging_steps=1,
    logging_nan_inf_filter=False,
    save_steps=settings["checkpoint_every"],
    save_total_limit=2,
    remove_unused_columns=False,
    ddp_find_unused_parameters=False,
    dataloader_drop_last=False,
    disable_tqdm=True,
    report_to=[],
    seed=settings["seed"],
    use_cpu=not torch.cuda.is_available(),
)
trainer = MuscTrainer(
    model=model,
    args=arguments,
    train_dataset=Pairs(per_pass * passes * world),
    data_collator=collate,
    callbacks=[Metrics()],
)
# trainer_state.json is written last: a checkpoint without it was cut off by a kill.
whole = [path.parent for path in (job / "state").glob("checkpoint-*/trainer_state.json")]
last = max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)
trainer.train(resume_from_checkpoint=str(last) if last else None)
if trainer.state.global_step < trainer.state.max_steps:
    sys.exit(143)
trainer.save_model(str(job / "adapter.tmp"))
trainer.accelerator.wait_for_everyone()
if rank == 0:
    (job / "adapter.tmp").rename(job / "adapter")
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
