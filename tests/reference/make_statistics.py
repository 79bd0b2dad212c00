"""Token statistics by transformers of a few answers, each under two prompts: f64 log-softmax of f32 logits.

    make_statistics.py world data/models/world       # writes fixtures/statistics/world.json; again for a new model
    make_statistics.py gemma3-270m FOLDER            # google/gemma-3-270m
"""
import sys

from common import FIXTURES, numbers, versions, write_json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def chat(question):
    return f"<|user|>{question}<|end|><|assistant|>"


ROWS = {
    "world": [
        (chat("Please write about a clever sailor and finish with the word feast. Do not use the word stone. Mention the word hammer."),
         chat("Please write about a clever sailor."),
         "The clever sailor slept for a long while, remembered the hammer and looked for the feast.<|end|>"),
        (chat("Write about a singer. Make the hero wise and write the first word in capital letters."),
         chat("Write about a singer. Make the hero wise."), "THE wise singer danced for a long while. The air was clear.<|end|>"),
        (chat("Please write about a miner. End with the word parade. It must happen at midnight. Write exactly two sentences."),
         chat(""), "Suddenly, the miner stood at midnight for a long while! He looked for the parade!<|end|>"),
    ],
    "gemma3-270m": [
        ("User: Name three rivers of Europe in one line, without commas.\n\nAssistant:",
         "User: Name three rivers of Europe.\n\nAssistant:", " Rhine Danube Loire"),
        ("User: Describe rain to a child. Use no word longer than five letters.\n\nAssistant:",
         "User: Describe rain to a child.\n\nAssistant:",
         " Rain is water that falls from grey clouds, drop by drop, and wakes the seeds."),
        ("User: Say good night in French and in German; end with a star.\n\nAssistant:", "User: \n\nAssistant:",
         " Bonne nuit, gute Nacht \u2605"),
    ],
}


def main(name, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    def encode(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    @torch.inference_mode()
    def dist(prompt, response):
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1:-1]
        return torch.log_softmax(logits.double(), -1)

    out = []
    for prompt, other, response in (map(encode, row) for row in ROWS[name]):
        p, q = dist(prompt, response), dist(other, response)
        at = torch.tensor(response)[:, None]
        out.append({
            "prompt": prompt, "other": other, "response": response,
            "logprob": numbers(p.gather(1, at)[:, 0]), "logprob_other": numbers(q.gather(1, at)[:, 0]),
            "entropy": numbers(-(p.exp() * p).sum(-1)), "entropy_other": numbers(-(q.exp() * q).sum(-1)),
            "kl": numbers((p.exp() * (p - q)).sum(-1)), "kl_reverse": numbers((q.exp() * (q - p)).sum(-1)),
        })
    write_json(FIXTURES / "statistics" / f"{name}.json", {"versions": versions(), "rows": out})


if __name__ == "__main__":
    main(*sys.argv[1:])
