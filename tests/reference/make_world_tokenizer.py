"""Ids and texts that Hugging Face's own `tokenizers` computes with a small world tokenizer.

Reads tests/fixtures/world-tokenizer/tokenizer.json (written by the test with UPDATE_FIXTURES=1, over the words listed
there), writes expected.json beside it. Needs only the `tokenizers` package.
"""
import random

from common import FIXTURES, write_json

import tokenizers

FOLDER = FIXTURES / "world-tokenizer"
TEXTS = [
    "Write about a brave sailor. Begin with the word Quietly and never say storm.",
    "Quietly, the brave sailor slept.", "QUIETLY, the sailor slept!", "quietly", "an unknown word",
    "##1. Is the text about a sailor?\n##2. Is it?\n##12. No", "Question: Is it?\nNew question:",
    "<|user|>Write about a sailor.<|end|><|assistant|>Quietly, the sailor slept.<|end|>",
    "<|user|><|end|><|assistant|>", "<|end|>\n<|end|>", "<|user|> Write <|end|>", "<|use r|>", "<0x41>",
    " leading", "trailing  ", "a  b   c", "\n", "\n\n a\n", "tab\there", "a\r\nb", "don't stop", "it's 42%",
    "h\u00e9llo w\u00f6rld", "\u65e5\u672c\u8a9e", "\U0001f600 smile \U0001f468\u200d\U0001f469", "e\u0301", "x\u00a0y",
    "\u200b", "\u0000", "{}[]~`^\\|<>", "sailor.sailor,sailor", "Sailor saiLor SAILOR", "\u0130",
]


def main():
    rng = random.Random(1)
    texts = TEXTS + ["".join(chr(rng.choice([rng.randrange(1, 128), rng.randrange(128, 0x2500)])) for _ in range(n))
                     for n in range(1, 40)]
    tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    cases = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
    write_json(FOLDER / "expected.json", {"tokenizers": tokenizers.__version__, "cases": cases})


main()
