"""What NLTK's English Punkt model knows, for data/models/punkt/english.json.

    pip install nltk==3.9.2; python -m nltk.downloader punkt_tab
    python tests/reference/make_punkt.py [PUNKT_FOLDER]

PUNKT_FOLDER is NLTK's tokenizers/punkt_tab/english, found by NLTK if not given. Of the 20,366 words with their spelling only
those are kept that decide something: words written with a small first letter, and which of them also have a capital inside
sentences. The model is the one of Kiss and Strunk that comes with NLTK (Apache-2.0), trained on newspaper text.
"""
import json
import sys
from pathlib import Path

# Bits of an orthographic context: 2, 4, 8 a capital and 16, 32, 64 a small letter, at the start of a sentence, inside, unknown.
SMALL, CAPITAL_INSIDE, SMALL_START, CAPITAL = 16 | 32 | 64, 4, 16, 2 | 4 | 8
OUT = Path(__file__).parents[2] / "data" / "models" / "punkt" / "english.json"
WIDTH = 100


def folder():
    if len(sys.argv) > 1:
        return Path(sys.argv[1])
    import nltk

    return Path(nltk.data.find("tokenizers/punkt_tab/english"))


def wrapped(words):
    """Sorted words, separated by blanks, on lines of about equal length."""
    lines = [""]
    for word in sorted(words):
        assert " " not in word, word
        if len(lines[-1]) + len(word) >= WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def main():
    rows = lambda name: (folder() / name).read_text(encoding="utf-8").rstrip("\n").split("\n")
    contexts = [(word, int(bits)) for word, bits in (line.split("\t") for line in rows("ortho_context.tab"))]
    ordinary = {word for word, bits in contexts if bits & SMALL}
    capitalised = {word for word, bits in contexts if bits & CAPITAL_INSIDE}
    model = {
        "abbreviations": sorted(rows("abbrev_types.txt")),
        "collocations": sorted(line.replace("\t", " ") for line in rows("collocations.tab")),
        "starters": wrapped(rows("sent_starters.txt")),
        "small": wrapped(word for word, bits in contexts if bits & SMALL_START and not bits & CAPITAL),
        "openers": wrapped(ordinary - capitalised),
        "mixed": wrapped(ordinary & capitalised),
    }
    OUT.write_text(json.dumps(model, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(OUT, OUT.stat().st_size, "bytes", {name: len(value) for name, value in model.items()})


main()
