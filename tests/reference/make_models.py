"""Tiny random checkpoints of every supported family, with the numbers that transformers and PEFT compute from them.

Each folder of tests/fixtures/models is a Hugging Face model folder plus `adapter/` (PEFT) and `expected.json`;
README.md describes the fields. All arithmetic is f32 (eager attention), statistics are taken in f64 from f32 logits.
"""
import json
import shutil
import sys

from common import FIXTURES, matrix, numbers, versions, write_json

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

SIZES = dict(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, bos_token_id=256, eos_token_id=[257, 259],
             pad_token_id=258)
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=64)
MODELS = {
    "llama": (LlamaConfig(**SIZES), torch.float32),
    "llama3-rope": (LlamaConfig(**{**SIZES, "hidden_size": 64, "num_hidden_layers": 2}, rope_parameters=LLAMA3_ROPE,
                                tie_word_embeddings=True), torch.bfloat16),
    # N * H differs from D; the window is far shorter than the sequences; the global layers stretch their positions.
    "gemma3": (Gemma3TextConfig(**{**SIZES, "num_hidden_layers": 4}, head_dim=16, query_pre_attn_scalar=24,
                                sliding_window=6, layer_types=["sliding_attention", "full_attention"] * 2,
                                rope_parameters={
                                    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                                    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}}),
               torch.float32),
    "qwen2": (Qwen2Config(**SIZES), torch.float16),
    "qwen3": (Qwen3Config(**SIZES, head_dim=12, tie_word_embeddings=True), torch.bfloat16),
    "mistral": (MistralConfig(**SIZES, sliding_window=5), torch.bfloat16),
}
# Layers whose LoRA gradients are written out.
SHOWN = ["layers.0.self_attn.q_proj", "layers.1.self_attn.k_proj", "layers.1.self_attn.o_proj", "layers.1.mlp.down_proj"]
BETA = 0.5


def initialise(model, gemma, seed):
    """Weights large enough that logits are far from flat and every part of the model matters.

    Where the head is the embedding, small embeddings keep the model from repeating its input; the last norm makes up for it.
    """
    g = torch.Generator().manual_seed(seed)
    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if "norm" in name:
                p.copy_(noise * 0.2 + (0 if gemma else 1) + (4 if tied and name == "model.norm.weight" else 0))
            elif name.endswith("bias"):
                p.copy_(noise * 0.2)
            elif "embed_tokens" in name:
                p.copy_(noise * (0.5 if not tied else 0.08 if gemma else 0.15))
            else:
                p.copy_(noise * 1.5 * p.shape[1] ** -0.5)


def log_softmax(model, ids):
    return torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), -1)


def response_dist(model, prompt, response):
    """[len(response), V]: row t is the distribution that predicts response token t."""
    return log_softmax(model, prompt + response)[len(prompt) - 1:-1]


def response_logprobs(model, prompt, response):
    return response_dist(model, prompt, response).gather(1, torch.tensor(response)[:, None])[:, 0]


def greedy(model, prompt, n):
    ids, margin = list(prompt), float("inf")
    for _ in range(n):
        top = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2)
        margin = min(margin, (top.values[0] - top.values[1]).item())
        ids.append(top.indices[0].item())
    return ids[len(prompt):], margin


def stats(model, clean, noised, response):
    c, n = response_dist(model, clean, response), response_dist(model, noised, response)
    index = torch.tensor(response)[:, None]
    return {
        "clean": clean, "noised": noised, "response": response,
        "logprob": numbers(c.gather(1, index)[:, 0]), "logprob_noised": numbers(n.gather(1, index)[:, 0]),
        "entropy": numbers(-(c.exp() * c).sum(-1)), "entropy_noised": numbers(-(n.exp() * n).sum(-1)),
        "kl": numbers((c.exp() * (c - n)).sum(-1)), "kl_reverse": numbers((n.exp() * (n - c)).sum(-1)),
    }


def gradients(model):
    """Norm over all LoRA matrices, and some of them, under our names."""
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    shown = {}
    for key in SHOWN:
        part = f"base_model.model.model.{key}.lora_%s.default.weight"
        shown[key] = {side: matrix(found[part % side]) for side in "AB"}
    norm = torch.sqrt(sum((g.double() ** 2).sum() for g in found.values()))
    model.zero_grad()
    return {"gradient_norm": numbers(norm), "gradients": shown}


def lora(model, folder, inputs, random_ids, g):
    """Trained-looking adapter (B is not zero), then loss and gradients of it: cross-entropy, DPO, token-weighted DPO."""
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=g) * (0.3 if "lora_A" in name else 0.2))
    model.peft_config["default"].base_model_name_or_path = folder.name
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    settings["target_modules"].sort()  # PEFT keeps a set, whose order changes from run to run
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    model.eval()

    logits = model(input_ids=torch.tensor([inputs[0]])).logits[0]
    sft = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(inputs[0][1:]))
    sft.backward()
    out = {"logits": {"row": 0, "position": len(inputs[0]) - 1, "values": numbers(logits[-1])},
           "sft": {"loss": numbers(sft), **gradients(model)}}

    pairs = [{"prompt": random_ids(p), "chosen": random_ids(c), "rejected": random_ids(r)}
             for p, c, r in [(9, 7, 11), (5, 12, 4)]]
    for pair in pairs:
        for side in ("chosen", "rejected"):
            weights = torch.rand(len(pair[side]), generator=g) * 2
            pair[f"{side}_weights"] = [round(w, 2) for w in weights.tolist()]
    for name, weighted in [("dpo", False), ("token_weighted_dpo", True)]:
        losses, rewards = [], {"chosen": [], "rejected": []}
        for pair in pairs:
            for side in rewards:
                with torch.no_grad(), model.disable_adapter():
                    reference = response_logprobs(model, pair["prompt"], pair[side])
                delta = response_logprobs(model, pair["prompt"], pair[side]) - reference
                weights = torch.tensor(pair[f"{side}_weights"]) if weighted else torch.ones(len(delta))
                rewards[side].append(BETA * (weights * delta).sum())
            losses.append(-torch.nn.functional.logsigmoid(rewards["chosen"][-1] - rewards["rejected"][-1]))
        loss = torch.stack(losses).mean()
        loss.backward()
        out[name] = {"loss": numbers(loss), "losses": numbers(torch.stack(losses)),
                     **{f"{side}_rewards": numbers(torch.stack(r)) for side, r in rewards.items()}, **gradients(model)}
    return {**out, "beta": BETA, "pairs": pairs}


def make(name, config, dtype):
    folder = FIXTURES / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    gemma = name.startswith("gemma")
    for seed in range(100):
        g = torch.Generator().manual_seed(1000 + seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        initialise(model, gemma, seed)
        model.to(dtype).save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

        def random_ids(n):
            return torch.randint(0, 256, (n,), generator=g).tolist()

        inputs = [random_ids(n) for n in (24, 17, 9)]
        with torch.no_grad():
            continuations = [greedy(model, ids, 64) for ids in inputs]
        # Another arithmetic must not be able to flip a greedy choice: take the first seed without near ties.
        if min(margin for _, margin in continuations) > 2e-3:
            break
    else:
        sys.exit(f"{name}: no seed without near ties")

    with torch.no_grad():
        outputs = [model(input_ids=torch.tensor([ids]), output_hidden_states=True) for ids in inputs]
        expected = {
            "versions": versions(), "seed": seed, "inputs": inputs,
            "logits": [{"row": r, "position": t, "values": numbers(out.logits[0, t])}
                       for r, out in enumerate(outputs) for t in sorted({0, len(inputs[r]) // 2, len(inputs[r]) - 1})],
            "logprobs": [numbers(log_softmax(model, ids)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0])
                         for ids in inputs],
            "hidden": [numbers(h[0, -1]) for h in outputs[0].hidden_states],
            "greedy": [{"prompt": ids, "tokens": tokens, "margin": numbers(margin)}
                       for ids, (tokens, margin) in zip(inputs, continuations)],
            "score": stats(model, random_ids(13), random_ids(10), random_ids(15)),
        }
    expected["lora"] = lora(model, folder, inputs, random_ids, g)
    # What PEFT reads back from the folder must be what was measured.
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    again = PeftModel.from_pretrained(base, folder / "adapter").eval()
    with torch.no_grad():
        got = again(input_ids=torch.tensor([inputs[0]])).logits[0, -1]
    assert torch.allclose(got, torch.tensor(expected["lora"]["logits"]["values"]), atol=1e-4)
    write_json(folder / "expected.json", expected)
    print(name, "seed", seed, "logit std", round(outputs[0].logits.std().item(), 2),
          json.dumps({p.name: p.stat().st_size for p in folder.rglob("*.safetensors")}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, (config, dtype) in MODELS.items():
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            make(name, config, dtype)
