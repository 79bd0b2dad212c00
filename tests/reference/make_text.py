"""Two tokenizers of 300 entries (byte-level BPE; BPE with byte fallback, as Gemma's) and what transformers makes of texts and chats.

The first goes into the `llama` model folder with a chat template, the second, without one, into `gemma3`.
"""
import json

from common import FIXTURES, write_json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

SPECIAL = {"<s>": 256, "</s>": 257, "<pad>": 258, "<|end|>": 259}
CORPUS = ["the rain in the garden is on the other side", "write a short answer and then end it", "there and here, one and two"]
TEXTS = [
    "", " ", "the rain", " the rain", "  two  blanks ", "line\nbreak\n\n\tand tab", "don't there's WE'LL", "12345 3.14",
    "naïve café", "e\u0301 or \u00e9", "日本語", "😀 👨\u200d👩\u200d👧", "a\u0000b\ufffd", "<s>the</s> end<|end|>\n",
    "<|end|><|end|> <pad>", "\u2581marked\u2581", "\r\n", "x" * 40, "hello , world . n't",
]
CHAT = {
    "chatml": """{%- if messages[0].role != 'system' -%}{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
""",
    "first-turn-system": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate") }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}{{ message['content'] | trim }}{%- endif -%}
    {{ '<|end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<turn>model\\n' }}{%- endif -%}
""",
    "headers": """{% set ns = namespace(system='') %}
{% for m in messages if m.role == 'system' %}
  {% set ns.system = m.content %}
{% endfor %}
{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}
{{ bos_token }}<|header|>system

Today: {{ date_string }}
{% if ns.system %}{{ ns.system | upper }}{% endif %}<|end|>
{% for m in messages | rejectattr('role', 'equalto', 'system') %}
{% if m.role == 'user' %}Q{{ loop.index }}: {{ m.content | tojson }}{% else %}A: {{ m.content | trim }}{{ eos_token }}{% endif %}{{ '\\n' if not loop.last or add_generation_prompt }}
{% endfor %}
{% if add_generation_prompt %}A:{% endif %}
""",
}
CONVERSATIONS = [
    [("user", "the rain")],
    [("system", "Be brief."), ("user", " in \"quotes\" \n")],
    [("user", "one"), ("assistant", " two "), ("user", "three"), ("assistant", "four\n")],
]


def train(tokenizer, first, alphabet):
    """Merges learned from the corpus, placed behind 256 bytes and the special tokens, so that both have 300 entries."""
    room = 300 - 260 - (0 if first == alphabet else len(alphabet))
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + room, initial_alphabet=sorted(alphabet), special_tokens=[],
                                  limit_alphabet=len(alphabet), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    order = sorted(learned["vocab"], key=learned["vocab"].get)
    rest = [t for t in order if t not in first]
    vocab = {t: i for i, t in enumerate(first)} | SPECIAL | {t: 260 + i for i, t in enumerate(rest)}
    assert len(vocab) == 300, len(vocab)
    return vocab, [tuple(m) for m in learned["merges"]]


def finish(tokenizer, folder, bos, settings):
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL["<s>"])])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    common = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**common, **settings}, indent=2) + "\n")
    loaded = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in TEXTS:
        ids = loaded(text, add_special_tokens=False).input_ids
        rows.append({"text": text, "ids": ids, "decoded": loaded.decode(ids, clean_up_tokenization_spaces=False),
                     "plain": loaded.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)})
    write_json(folder / "expected-tokens.json", rows)
    return loaded


def byte_level():
    first = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocab, merges = train(tokenizer, first, first)
    tokenizer.model = models.BPE(vocab=vocab, merges=merges)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_fallback():
    first = [f"<0x{b:02X}>" for b in range(256)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?=\u2581)"), "isolated")
    vocab, merges = train(tokenizer, first, ["\u2581"] + sorted(set("".join(CORPUS)) - {" "}))
    tokenizer.model = models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def chats(loaded):
    rows = []
    for name, template in CHAT.items():
        for turns in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in turns]
            for opened in (False, True):
                text = loaded.apply_chat_template(messages, chat_template=template, tokenize=False,
                                                  add_generation_prompt=opened)
                rows.append({"template": name, "messages": messages, "add_generation_prompt": opened, "text": text})
    write_json(FIXTURES / "chat" / "expected.json", {"templates": CHAT, "rows": rows})


if __name__ == "__main__":
    llama = FIXTURES / "models" / "llama"
    (llama / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}{{ m.role + ':\\n' + m.content }}<|end|>\n"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}")
    chats(finish(byte_level(), llama, False, {}))
    finish(byte_fallback(), FIXTURES / "models" / "gemma3", True, {})
