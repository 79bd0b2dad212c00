"""Twenty steps of TRL's DPOTrainer on the tiny Llama: the losses that our training must follow step by step.

The adapter of the fixture is where training starts; the reference is the model without an adapter. Pairs are ids and come
in order, so nothing but the arithmetic can differ.
"""
import tempfile

from common import FIXTURES, numbers, versions, write_json

import torch
import trl
from datasets import Dataset
from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

FOLDER = FIXTURES / "models" / "llama"
SETTINGS = {"beta": 0.1, "lr": 2e-3, "warmup_steps": 2, "weight_decay": 0.01, "max_grad_norm": 1.0, "batch": 4, "steps": 20}


class InOrder(DPOTrainer):
    """Pairs that are ids already, batch after batch as they stand."""

    def _prepare_dataset(self, dataset, *_):
        return dataset

    def _get_train_sampler(self, dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset if dataset is None else dataset)


def main():
    g = torch.Generator().manual_seed(7)

    def ids(low, high):
        length = torch.randint(low, high, (1,), generator=g).item()
        return torch.randint(0, 256, (length,), generator=g).tolist()

    pairs = [{"prompt_ids": ids(4, 20), "chosen_ids": ids(3, 16) + [259], "rejected_ids": ids(3, 16) + [259]}
             for _ in range(12)]
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32, attn_implementation="eager")
    config = LoraConfig.from_pretrained(FOLDER / "adapter")
    config.inference_mode = False
    with tempfile.TemporaryDirectory() as out:
        trainer = InOrder(
            model=model,
            args=DPOConfig(
                output_dir=out, per_device_train_batch_size=SETTINGS["batch"], max_steps=SETTINGS["steps"],
                learning_rate=SETTINGS["lr"], lr_scheduler_type="cosine", warmup_steps=SETTINGS["warmup_steps"],
                weight_decay=SETTINGS["weight_decay"], max_grad_norm=SETTINGS["max_grad_norm"], beta=SETTINGS["beta"],
                max_length=None, use_cpu=True, bf16=False, gradient_checkpointing=False, logging_steps=1,
                save_strategy="no", report_to=[], disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(pairs), processing_class=AutoTokenizer.from_pretrained(FOLDER),
            peft_config=config,
        )
        set_peft_model_state_dict(trainer.model, load_peft_weights(str(FOLDER / "adapter"), device="cpu"))
        trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    write_json(FIXTURES / "dpo" / "expected.json", {
        "versions": {**versions(), "trl": trl.__version__}, "model": "llama", "settings": SETTINGS,
        "pairs": [{k.removesuffix("_ids"): v for k, v in pair.items()} for pair in pairs],
        "steps": [{"loss": row["loss"], "lr": row["learning_rate"], "gradient_norm": numbers(row["grad_norm"]),
                   "margin": numbers(row["rewards/margins"])} for row in log]})


if __name__ == "__main__":
    main()
