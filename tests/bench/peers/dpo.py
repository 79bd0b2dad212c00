"""TRL's DPOTrainer over pairs of token ids in their order, from the adapter given."""
import contextlib
import io
import tempfile

from common import answer, clock, job, model, rows

import torch
from datasets import Dataset
from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer

spent = 0.0


class InOrder(DPOTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset

    def _get_train_sampler(self, dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset if dataset is None else dataset)

    def _precompute_ref_logps(self, *args, **kwargs):
        """Part of the work, but done before train()."""
        global spent
        seconds = clock()
        out = super()._precompute_ref_logps(*args, **kwargs)
        spent += seconds()
        return out


pairs = [{f"{k}_ids": row[k] for k in ("prompt", "chosen", "rejected")} for row in rows(job["pairs"])]
config = LoraConfig.from_pretrained(job["adapter"])
config.inference_mode = False
tokenizer = AutoTokenizer.from_pretrained(job["model"])
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
    trainer = InOrder(
        model=model(),
        args=DPOConfig(
            output_dir=out, per_device_train_batch_size=job["batch"], num_train_epochs=1, learning_rate=job["lr"],
            lr_scheduler_type="cosine", warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0, beta=job["beta"],
            max_length=None, precompute_ref_log_probs=job["precompute"], use_cpu=job["device"] == "cpu",
            bf16=job.get("bf16", False), gradient_checkpointing=False, logging_steps=1, save_strategy="no",
            report_to=[], disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(pairs), processing_class=tokenizer, peft_config=config,
    )
    set_peft_model_state_dict(trainer.model, load_peft_weights(job["adapter"], device=job["device"]))
    before, seconds = spent, clock()
    trainer.train()
    took = seconds() + before
answer(done=len(pairs), seconds=took, losses=[row["loss"] for row in trainer.state.log_history if "loss" in row])
