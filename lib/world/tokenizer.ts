import { corpusExample } from "./corpus"

/** Special tokens: turns of the chat, end of turn (also end of text), padding. */
const specialTokens = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"] as const

/** One pre-token: a list mark such as `##2.`, a word with the space before it, or any other single character. */
const preToken = "▁?##[0-9]\\.|▁?[A-Za-z]+|[^A-Za-z]"

/** Turns end with `<|end|>`; the answer of the model follows `<|assistant|>`. */
const chatTemplate =
  "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"

/**
 * Words of the first `examples` training examples, each a token, in code-unit order. The word at the start of a text
 * and inside a sentence is the same token, because a space is put before every text.
 */
export function worldVocabulary(options: { seed: number; examples: number }): string[] {
  const words = new Set<string>()
  const pattern = new RegExp(preToken, "gu")
  for (let i = 0; i < options.examples; i++) {
    const { prompt, response } = corpusExample(i, { seed: options.seed, phase: "able" })
    for (const text of [prompt, response]) {
      for (const [token] of `▁${text.replaceAll(" ", "▁")}`.matchAll(pattern)) words.add(token)
    }
  }
  return [...words].filter((word) => word.length > 1).sort()
}

/**
 * The files of a Hugging Face tokenizer over a vocabulary of whole words: BPE without merges, where a known word is one
 * token (`ignore_merges`), another word is spelt in ASCII characters, and any other character in UTF-8 bytes, so every
 * text without the space mark U+2581 itself comes back unchanged.
 */
export function worldTokenizer(words: readonly string[]): {
  "tokenizer.json": object
  "tokenizer_config.json": object
  "generation_config.json": object
} {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`)
  const characters = ["\t", "\n", "\r", ...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)), "▁"]
  const vocabulary = [...specialTokens, ...bytes, ...characters.filter((character) => character !== " "), ...words]
  const id = (token: string) => vocabulary.indexOf(token)
  return {
    "tokenizer.json": tokenizerJson(vocabulary, id),
    "tokenizer_config.json": {
      tokenizer_class: "PreTrainedTokenizerFast",
      clean_up_tokenization_spaces: false,
      model_max_length: 512,
      eos_token: "<|end|>",
      pad_token: "<|pad|>",
      chat_template: chatTemplate,
    },
    "generation_config.json": { eos_token_id: id("<|end|>"), pad_token_id: id("<|pad|>") },
  }
}

function tokenizerJson(vocabulary: readonly string[], id: (token: string) => number): object {
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content) => ({
      id: id(content),
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: { type: "Split", pattern: { Regex: preToken }, behavior: "Isolated", invert: false },
    post_processor: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: true,
      ignore_merges: true,
      vocab: Object.fromEntries(vocabulary.map((token, index) => [token, index])),
      merges: [],
    },
  }
}
