"""Verdicts of lm-eval's IFEval checkers on made-up texts, for tests/reference/compare-ifeval.ts.

    pip install lm-eval==0.4.13 nltk==3.9.2 langdetect==1.0.9 immutabledict; python -m nltk.downloader punkt_tab
    python tests/reference/ifeval.py cases CASES.jsonl [--texts 1000] [--seed 1] [--sample 400]
    python tests/reference/ifeval.py answers DATA.jsonl ANSWERS.jsonl [--seed 1]
    python tests/reference/ifeval.py responses DATA.jsonl RESPONSES.jsonl VERDICTS.jsonl
    python tests/reference/ifeval.py short [--seed 1] [--texts 150]

NLTK 3.10 parts words and sentences otherwise at marks and curly quotes; published figures are older.

`cases` writes rows {id, kwargs, text, verdict}; the verdict is null where the official one hangs on unseeded random numbers.
`answers` writes an answer to every official prompt {key, response, prompt: [strict, loose], instructions: [[strict, loose]]}.
`responses` does the same for real answers {id, response}; what langdetect decides by chance is null.
`short` writes short texts made of marks, and texts of two or three short sentences, with what Python counts in them, to
tests/fixtures/ifeval/short.json.
`--sample N` also writes N of the cases, short ones, to tests/fixtures/ifeval/cases.json.
"""
import argparse
import json
import logging
import random

import langdetect
import nltk
from common import FIXTURES, write_json
from lm_eval.tasks.ifeval import instructions_registry, utils
from texts import LANGUAGES, Texts

logging.disable(logging.ERROR)
SEEDS = range(3)


def verdict(name, kwargs, text, loose=False):
    """What lm-eval says; None if it says different things for different seeds of langdetect."""
    example = utils.InputExample(1, [name], "", [kwargs])
    test = utils.test_instruction_following_loose if loose else utils.test_instruction_following_strict
    found = set()
    for seed in SEEDS if name.startswith(("language:", "change_case:english")) else [0]:
        langdetect.DetectorFactory.seed = seed
        found.add(test(example, text).follow_all_instructions)
    return found.pop() if len(found) == 1 else None


def kwargs_near(name, text, rng):
    """Arguments whose threshold lies at or beside what the text has."""
    near = lambda n: max(1, n + rng.choice([-1, 0, 0, 1]))
    relation = rng.choice(["less than", "at least"])
    words = [w for w in nltk.tokenize.RegexpTokenizer(r"[A-Za-z]+").tokenize(text)] or ["word"]
    word = rng.choice(words + ["kiss", "link", "river", "is"])
    match name:
        case "length_constraints:number_words":
            return {"num_words": near(len(nltk.tokenize.RegexpTokenizer(r"\w+").tokenize(text))), "relation": relation}
        case "length_constraints:number_sentences":
            return {"num_sentences": near(len(nltk.sent_tokenize(text))), "relation": relation}
        case "length_constraints:number_paragraphs":
            return {"num_paragraphs": near(text.count("***") + 1)}
        case "length_constraints:nth_paragraph_first_word":
            pieces = [p for p in text.split("\n\n")]
            n = max(1, sum(bool(p.strip()) for p in pieces))
            nth = rng.randint(1, n)
            first = (pieces[min(nth, len(pieces)) - 1].split() or ["word"])[0].strip("\"'.,!?") or "word"
            return {"num_paragraphs": rng.choice([n, n, n, n + 1]), "nth_paragraph": nth, "first_word": rng.choice([first, first, first.upper(), word])}
        case "keywords:existence":
            return {"keywords": rng.sample(words + ["river", "kiss"], k=min(2, len(words)))}
        case "keywords:forbidden_words":
            return {"forbidden_words": [word, rng.choice([word[:3], word[1:] or "a", "kelvin"])]}
        case "keywords:frequency":
            part = rng.choice([word, word[:2], word.upper()])
            return {"keyword": part, "frequency": near(text.lower().count(part.lower())), "relation": relation}
        case "keywords:letter_frequency":
            letter = rng.choice("etaoinqzTK")
            return {"letter": letter, "let_frequency": near(text.lower().count(letter.lower())), "let_relation": relation}
        case "change_case:capital_word_frequency":
            return {"capital_frequency": near(sum(w.isupper() for w in nltk.word_tokenize(text))), "capital_relation": relation}
        case "language:response_language":
            return {"language": rng.choice(LANGUAGES)}
        case "startend:end_checker":
            end = text.strip().strip('"')[-rng.randint(3, 20) :].strip()
            return {"end_phrase": rng.choice([end, end.upper(), "Any other questions?"]) or "end"}
        case "combination:repeat_prompt":
            return {"prompt_to_repeat": rng.choice([text[: rng.randint(5, 60)], "Write a riddle"]).strip() or "x"}
        case "detectable_content:number_placeholders":
            return {"num_placeholders": near(text.count("["))}
        case "detectable_content:postscript":
            return {"postscript_marker": rng.choice(["P.S.", "P.P.S"])}
        case "detectable_format:number_highlighted_sections":
            return {"num_highlights": near(text.count("*") // 2)}
        case "detectable_format:number_bullet_lists":
            return {"num_bullets": near(sum(line.strip()[:1] in ("*", "-") for line in text.split("\n")))}
        case "detectable_format:multiple_sections":
            splitter = rng.choice(["SECTION", "Section", "Day", "PARAGRAPH"])
            return {"section_spliter": splitter, "num_sections": near(text.count(splitter))}
    return {}


def cases(args):
    rng = random.Random(args.seed)
    texts = Texts(rng)
    rows = []
    for _ in range(args.texts):
        text = texts.text()
        for name in sorted(instructions_registry.INSTRUCTION_DICT):
            kwargs = kwargs_near(name, text, rng)
            rows.append({"id": name, "kwargs": kwargs, "text": text, "verdict": verdict(name, kwargs, text)})
    with open(args.out, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    print(len(rows), "cases,", sum(row["verdict"] is None for row in rows), "of them unseeded,", sum(row["verdict"] is True for row in rows), "followed")
    if args.sample:
        short = [row for row in rows if len(row["text"]) < 250 and row["verdict"] is not None]
        chosen = []
        for name in sorted(instructions_registry.INSTRUCTION_DICT):
            for followed in (True, False):
                own = [row for row in short if row["id"] == name and row["verdict"] is followed]
                chosen += rng.sample(own, k=min(len(own), args.sample // 50))
        write_json(FIXTURES / "ifeval" / "cases.json", [list(row.values()) for row in chosen])


def answers(args):
    rng = random.Random(args.seed)
    random.seed(args.seed)
    langdetect.DetectorFactory.seed = 0
    texts = Texts(rng)
    with open(args.data, encoding="utf-8") as file, open(args.out, "w", encoding="utf-8") as out:
        for line in file:
            row = json.loads(line)
            response = texts.answer(row)
            strict = utils.test_instruction_following_strict(utils.InputExample(**row), response)
            loose = utils.test_instruction_following_loose(utils.InputExample(**row), response)
            result = {
                "key": row["key"],
                "response": response,
                "prompt": [strict.follow_all_instructions, loose.follow_all_instructions],
                "instructions": list(zip(strict.follow_instruction_list, loose.follow_instruction_list)),
            }
            out.write(json.dumps(result) + "\n")


def verdicts(example, response, loose):
    """Verdicts on a response by instruction, null where they hang on the seed of langdetect or on a random letter."""
    test = utils.test_instruction_following_loose if loose else utils.test_instruction_following_strict
    found = []
    for seed in SEEDS:
        langdetect.DetectorFactory.seed = seed
        random.seed(seed)
        found.append(test(example, response).follow_instruction_list)
    return [own[0] if len(set(own)) == 1 else None for own in zip(*found)]


def responses(args):
    with open(args.data, encoding="utf-8") as file:
        rows = {row["key"]: row for row in map(json.loads, file)}
    with open(args.responses, encoding="utf-8") as file, open(args.out, "w", encoding="utf-8") as out:
        for line in file:
            given = json.loads(line)
            row = rows[int(given.get("id", given.get("key")))]
            response = given["responses"][0] if "responses" in given else given["response"]
            example = utils.InputExample(**row)
            pairs = zip(verdicts(example, response, False), verdicts(example, response, True))
            out.write(json.dumps({"key": row["key"], "response": response, "instructions": list(pairs)}) + "\n")


MARKS = ["*", "*", "**", "-", "-", "[", "]", "<<", ">>", "<", ">", '"', "'", "\n", "\n", "\n\n", " ", "\t", "\u00a0", "\x1c", "a", "B.", "x", "1"]
SHORT = """Well... Silence fell.|Wait... What?|He left. . . Nobody knew.|Done. ok.|At 5 p.m. Rain came.|I met J. Bond. Hooray!|It cost 3. Cheap!
She lives in the U.S. Nice.|No. 5 is here.|Stop!!! Go...|"Yes." He nodded.|(Really.) Fine.|e.g. this. Or that.|Hmm.. Okay.|One.Two. Three""".replace("\n", "|").split("|")


def short(args):
    rng = random.Random(args.seed)
    checker = lambda name, **kwargs: (lambda one: (one.build_description(**kwargs), one)[1])(instructions_registry.INSTRUCTION_DICT[name](name))
    follows = lambda text, name, **kwargs: bool(checker(name, **kwargs).check_following(text))
    count = lambda text, name, key: next(n for n in range(1, 99) if not follows(text, name, **{key: n})) - 1
    bullets = lambda text: next((n for n in range(1, 99) if follows(text, "detectable_format:number_bullet_lists", num_bullets=n)), 0)
    rows = []
    for _ in range(args.texts):
        text = "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 24)))
        text = rng.choice([text, text, f'"{text}"', f"<<{text}>>"])
        rows.append({
            "text": text,
            "bullets": bullets(text),
            "placeholders": count(text, "detectable_content:number_placeholders", "num_placeholders"),
            "highlights": count(text, "detectable_format:number_highlighted_sections", "num_highlights"),
            "title": follows(text, "detectable_format:title"),
            "quotation": follows(text, "startend:quotation"),
            "stripped": text.strip(),
        })
    frames = "{0}... {1} fell.|{0}. {1} came.|{0}! {1}?|{1} said {0}. Then {1} left.|{0}.. {1} {0}|A. {1} {0}.|3. {1} {0}.|Mr. {1} {0}. {1}".split("|")
    vocabulary = [word for word in open(nltk.data.find("tokenizers/punkt_tab/english/ortho_context.tab"), encoding="utf-8").read().split() if word.isalpha()]
    common = "silence rain music night snow everyone smoke laughter darkness thunder moonlight whispers footsteps coffee luck".split()
    texts = SHORT + [
        rng.choice(frames).format(rng.choice("Well So Oh Yes Hmm Wait then but etc Ok".split()), rng.choice(common + rng.sample(vocabulary, 9)).capitalize())
        for _ in range(args.texts)
    ]
    sentences = [[text, len(nltk.sent_tokenize(text)), nltk.word_tokenize(text)] for text in dict.fromkeys(texts)]
    write_json(FIXTURES / "ifeval" / "short.json", {"marks": rows, "sentences": sentences})


parser = argparse.ArgumentParser()
commands = parser.add_subparsers(required=True)
make = commands.add_parser("cases")
make.add_argument("out")
make.add_argument("--texts", type=int, default=1000)
make.add_argument("--sample", type=int, default=0)
make.set_defaults(run=cases)
whole = commands.add_parser("answers")
whole.add_argument("data")
whole.add_argument("out")
whole.set_defaults(run=answers)
real = commands.add_parser("responses")
for name in ("data", "responses", "out"):
    real.add_argument(name)
real.set_defaults(run=responses)
few = commands.add_parser("short")
few.add_argument("--texts", type=int, default=150)
few.set_defaults(run=short)
for command in (make, whole, real, few):
    command.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()
arguments.run(arguments)
