/** Rendered prompts where a bare text is wanted: the chat template would be applied twice. */

/** How rendered prompts begin, and how they end where the model's answer is to follow. */
const templates: readonly (readonly [begin: RegExp, end: RegExp])[] = [
  [/^\s*<\|im_start\|>/, /<\|im_start\|>assistant\s*$/],
  [/^\s*(?:<\|begin_of_text\|>)?\s*<\|start_header_id\|>/, /<\|start_header_id\|>assistant<\|end_header_id\|>\s*$/],
  [/^\s*(?:<s>)?\s*\[INST\]/, /\[\/INST\]\s*$/],
  [/^\s*(?:<bos>)?\s*<start_of_turn>/, /<start_of_turn>model\s*$/],
  [/^\s*<\|(?:user|system)\|>/, /<\|assistant\|>\s*$/],
  [/^\s*(?:<｜begin▁of▁sentence｜>)?.{0,2000}?<｜User｜>/s, /<｜Assistant｜>\s*(?:<think>\s*)?$/],
  [/^\s*(?:Below is an instruction\b|### ?(?:Instruction|Human|User):)/, /### ?(?:Response|Assistant):\s*$/],
]

/** Whether a prompt is one that a chat template has been applied to. */
export const isRendered = (prompt: string): boolean =>
  templates.some(([begin, end]) => begin.test(prompt) && end.test(prompt.slice(-200)))

/** Whether a text is a list of messages, as JSON or as Python prints it: tables hold chats so. */
export const isChatAsText = (text: string): boolean =>
  /^\s*\[\s*\{\s*(["'])(?:role|content|from|value)\1\s*:/.test(text) && /\}\s*\]\s*$/.test(text.slice(-200))

/** End-of-turn tokens, which some programs leave at the end of a text. */
const endMarks =
  "<|im_end|> <|eot_id|> <|endoftext|> <|end|> <|return|> <end_of_turn> <｜end▁of▁sentence｜> </s>".split(" ")

/** The end-of-turn token with which a text ends; undefined for none. */
export const endMarkOf = (text: string): string | undefined => {
  const end = text.trimEnd()
  return endMarks.find((mark) => end.endsWith(mark))
}

/** Without end-of-turn tokens at the end; from the end on, since a text of 8 MiB may be made of them. */
export function withoutEndMarks(text: string): string {
  let [end, kept] = [text.length, text.length]
  const struck = text.lastIndexOf("<s>")
  // HTML's `<s>…</s>` for struck-out text looks like these tokens. At the start of a text, `<s>` is the token.
  const html = text.slice(0, Math.max(0, struck)).trim() ? text.indexOf("</s>", struck) : -1
  for (;;) {
    while (end && !text[end - 1]!.trim()) end--
    const mark = endMarks.find((one) => end >= one.length && text.startsWith(one, end - one.length))
    if (!mark || (mark === "</s>" && end - mark.length === html)) return text.slice(0, kept)
    end -= mark.length
    kept = end
  }
}
