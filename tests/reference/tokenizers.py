"""Token ids of small self-made tokenizers of every kind that chat models use, on texts that tell libraries apart.

    tokenizers.py                 writes tests/fixtures/tokenizers/expected.json
    tokenizers.py FILE... OUT     the same for tokenizer.json files that are not ours to keep
"""
import json
import pathlib
import random
import sys

# This file has the name of the package, so its folder must not come first.
sys.path = [path for path in sys.path if pathlib.Path(path or ".").resolve() != pathlib.Path(__file__).resolve().parent]
import tokenizers  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "tokenizers" / "expected.json"
CORPUS = ["the rain in Spain falls mainly on the plain", "It's what we'd do, isn't it? They'll say I've 12,345 reasons.",
          "def f(x):\n    return x + 1\n\n\nclass A:\n\tpass", "naïve café 北京 東京 한국 😀👍", "A  B   C    D\r\nE\n\nF"] * 20
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = GPT4.replace("{1,3}", "")
PIECES = ["a", "the", "rain", "It", "'s", "'S", "'ll", "n't", "’s", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", "\u0085", "\ufeff", "\u00a0", "\u2028",
          "\u3000", "\u200b", "\x1c", "\x00", "1", "23", "4567", "½", "²", "٣", "é", "e\u0301", "ß", "İ", "ſ", "北京", "한", "😀", "👨‍👩‍👧", "_", "-", "...", "<|x|>",
          "<word>", "<pad>", "word", "x_", "/", "\\", "ΑΣ", "ﬁ", "Å", "\U0001d400", "\ud7ff", "ʼ", "\u0e33", "\u094d", "\u0903", "▁", "##a", "<0x41>"]


def texts(seed, count):
    r = random.Random(seed)
    return ["", "<word>word <word>", *PIECES, *("".join(r.choice(PIECES) for _ in range(r.randint(2, 9))) for _ in range(count))]


def byte_level(pre, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<pad>"], show_progress=False))
    if normalizer:
        tokenizer.normalizer = normalizer
    data = json.loads(tokenizer.to_str())
    data["model"].update(model)
    return Tokenizer.from_str(json.dumps(data))


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentence_piece(normalizer, pre=None):
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizer
    if pre:
        tokenizer.pre_tokenizer = pre
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=460, special_tokens=["<unk>", "<pad>", *bytes_], show_progress=False))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    data["model"]["byte_fallback"] = True
    data["decoder"] = json.loads(json.dumps({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}))
    return Tokenizer.from_str(json.dumps(data))


def with_added(tokenizer, **flags):
    tokenizer.add_tokens([AddedToken("<word>", **flags), AddedToken("word", **flags), AddedToken("<|x|>", special=True)])
    return tokenizer


def kinds():
    n = normalizers
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    yield "gpt2", byte_level(gpt2)
    yield "gpt2-prefix-space", byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))
    yield "smollm2", with_added(byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])))
    yield "llama3", with_added(byte_level(split(GPT4)))
    qwen = with_added(byte_level(split(QWEN)))
    qwen.normalizer = n.NFC()
    yield "qwen", qwen
    yield "added-single-word", with_added(byte_level(gpt2), single_word=True)
    yield "added-strip", with_added(byte_level(gpt2), lstrip=True, rstrip=True)
    yield "added-not-normalized", with_added(qwen_lower(), normalized=False)
    yield "added-normalized", with_added(qwen_lower(), normalized=True)
    yield "llama2", sentence_piece(n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")]))
    yield "gemma", with_added(sentence_piece(n.Replace(" ", "▁")))
    yield "metaspace", sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="first"))
    yield "lower", byte_level(gpt2, n.Lowercase())
    yield "strip", byte_level(gpt2, n.Sequence([n.Strip(), n.NFD(), n.StripAccents()]))
    yield "llama3-ignore-merges", byte_level(split(GPT4), ignore_merges=True)
    for behavior in ("removed", "merged_with_previous", "merged_with_next", "contiguous"):
        yield "split-" + behavior.replace("_", "-"), byte_level(split(r"\s", behavior))
        yield "split-inverted-" + behavior.replace("_", "-"), byte_level(split(r"\p{L}+", behavior, True))
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for pre in ("Whitespace", "WhitespaceSplit", "Punctuation", "BertPreTokenizer"):
        yield pre.lower(), byte_level(pre_tokenizers.Sequence([getattr(pre_tokenizers, pre)(), plain]))
    yield "digits", byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), plain]))
    yield "metaspace-always", sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="always"))
    yield "metaspace-whole", sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    overlap = byte_level(gpt2)
    overlap.add_tokens([AddedToken("<|x|>", special=True), AddedToken("<|x|>_"), AddedToken("x_", normalized=False)])
    yield "added-overlap", overlap
    yield "nfkc", sentence_piece(n.Sequence([n.NFKC(), n.Replace(" ", "▁")]))
    yield "metaspace-first-added", with_added(sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="first")))
    yield "metaspace-whole-added", with_added(sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)), rstrip=True)
    never = with_added(sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="never")))
    never.decoder = decoders.Metaspace(prepend_scheme="never")
    yield "metaspace-never", never
    yield "possessive", byte_level(split(r"[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"))
    yield "atomic", byte_level(split(r"(?>a|an)[nt]|(?>[\p{L}[_-]]+)x|(?:\s|\x0a)++\S|."))
    yield "replace-literally", byte_level(gpt2, n.Sequence([n.Replace("a", "$&$1"), n.Replace(Regex(r"\s+"), "$$ ")]))
    yield "llama2-added", with_added(sentence_piece(n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")])))
    letters = byte_level(gpt2)
    letters.add_tokens(["für", "é", "北京", "<é>"])
    yield "added-letters-of-bytes", letters
    yield "added-single-word-ignore-merges", with_added(byte_level(split(GPT4), n.NFC(), ignore_merges=True), single_word=True)
    blanks = sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="always", split=False))
    blanks.decoder = decoders.Metaspace(prepend_scheme="always")
    yield "metaspace-decoder", blanks
    yield "unknown-joined", plain_bpe("<unk>", fuse_unk=True)
    yield "unknown-apart", plain_bpe("<unk>", fuse_unk=False)
    yield "unknown-left-out", plain_bpe(None)
    yield "unigram", trained(models.Unigram(), trainers.UnigramTrainer(vocab_size=160, special_tokens=["<unk>", "<pad>"], unk_token="<unk>", show_progress=False))
    for name, bytes_ in (("unigram-some-bytes", ["<0x0A>", "<0xC3>", "<0xA9>"]), ("unigram-bytes", [f"<0x{i:02X}>" for i in range(256)])):
        data = json.loads(trained(models.Unigram(), trainers.UnigramTrainer(vocab_size=420, special_tokens=["<unk>", *bytes_], unk_token="<unk>", show_progress=False)).to_str())
        data["added_tokens"] = data["added_tokens"][:1]
        data["model"]["byte_fallback"] = True
        yield name, Tokenizer.from_str(json.dumps(data))
    pieces = trained(models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False), pre_tokenizers.BertPreTokenizer())
    pieces.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    yield "wordpiece", pieces
    yield "prepend-after-strip", sentence_piece(n.Sequence([n.Strip(), n.Prepend("▁"), n.Replace(" ", "▁")]))


def trained(model, trainer, pre=None):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre or pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def plain_bpe(unk, **model):
    return trained(models.BPE(unk_token=unk, **model), trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False), pre_tokenizers.Whitespace())


def qwen_lower():
    tokenizer = byte_level(split(QWEN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    return tokenizer


def rows(tokenizer, seed, count):
    for text in texts(seed, count):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        yield [text, ids, tokenizer.decode(ids, skip_special_tokens=False)]
    # Ids as a model may write them: half characters, blanks anywhere.
    r = random.Random(seed)
    for _ in range(count // 8):
        ids = [r.randrange(tokenizer.get_vocab_size()) for _ in range(r.randint(1, 6))]
        yield [None, ids, tokenizer.decode(ids, skip_special_tokens=False)]


def main():
    files = sys.argv[1:-1]
    if len(sys.argv) > 1:
        made, count, out = [(pathlib.Path(f).parent.name, Tokenizer.from_file(f), f) for f in files], 2800, pathlib.Path(sys.argv[-1])
    else:
        made, count, out = [(name, tokenizer, None) for name, tokenizer in kinds()], 80, OUT
    lines = []
    for seed, (name, tokenizer, file) in enumerate(made):
        source = {"file": file} if file else {"json": json.loads(tokenizer.to_str())}
        lines.append(json.dumps({"name": name, **source, "rows": list(rows(tokenizer, seed, count))}, ensure_ascii=True, separators=(",", ":")))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text('{"tokenizers":"' + tokenizers.__version__ + '","kinds":[\n' + ",\n".join(lines) + "\n]}\n")
    print(out, len(lines), "tokenizers", out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
