/**
 * Replies of models that think aloud before they answer. The thoughts are no part of the reply: they would become
 * constraints, questions, answers and verdicts.
 */

export interface SplitReply {
  /** What the model answered; empty where it has not got beyond its thoughts. */
  answer: string
  /** What it thought, tags included; empty for a model that does not think. */
  thoughts: string
  /** Whether the reply ends inside the thoughts, so that there is no answer. */
  unfinished: boolean
}

/** How models mark their thoughts; patterns. */
interface Marks {
  open: string
  close: string
}

const paired: readonly Marks[] = [
  // Qwen3, DeepSeek-R1, GLM, Phi-4-reasoning, SmolLM3, … and, under longer names, EXAONE Deep, Reflection, Seed-OSS
  ...["think", "thinking", "thought", "seed:think"].map((name) => ({ open: `<${name}>`, close: `</${name}>` })),
  { open: "\\[THINK\\]", close: "\\[/THINK\\]" }, // Magistral
  { open: "◁think▷", close: "◁/think▷" }, // Kimi-VL
  { open: "<\\|begin_of_thought\\|>", close: "<\\|end_of_thought\\|>" }, // OpenThinker, Sky-T1
  { open: "<\\|START_THINKING\\|>", close: "<\\|END_THINKING\\|>" }, // Command A Reasoning
  { open: "<\\|channel>thought", close: "<channel\\|>" }, // Gemma
  { open: "<unused94>thought", close: "<unused95>" }, // MedGemma
  // gpt-oss: everything before the final channel, with its special tokens or without
  {
    open: "(?:<\\|start\\|>assistant)?<\\|channel\\|>(?:analysis|commentary)",
    close: "<\\|channel\\|>final(?:[^<]*)<\\|message\\|>",
  },
]

const starts = paired.map(({ open, close }) => ({
  open: new RegExp(`^\\s*${open}`, "i"),
  close: new RegExp(close, "i"),
}))
const plainChannels = /^analysis[\s\S]*?assistantfinal/
const promptEnd = new RegExp(`(?:${paired.map(({ open }) => open).join("|")})\\s*$`, "i")
/** What wraps the answer of some of these models, at its very beginning and end. */
const wrappers = [
  ["<|begin_of_solution|>", "<|end_of_solution|>"],
  ["<|START_RESPONSE|>", "<|END_RESPONSE|>"],
] as const

/**
 * Splits a model's raw text into thoughts and answer. Thoughts are: a block at the beginning, and further ones right
 * behind it; everything up to a closing tag whose opening tag stood in the prompt; and a `<think>` block on lines of its
 * own further down. Tags that an answer merely mentions (inside a line, in code) stay. Blank lines between thoughts and
 * answer go; a text without thoughts comes back as it is.
 */
export function splitThoughts(text: string): SplitReply {
  let rest = text
  let thoughts = ""
  for (;;) {
    const block = leading(rest)
    if (block === undefined) break
    if (block < 0) return { answer: "", thoughts: text, unfinished: true }
    thoughts += rest.slice(0, block)
    rest = rest.slice(block)
  }
  if (!thoughts) {
    const end = unopened(rest)
    thoughts = rest.slice(0, end)
    rest = rest.slice(end)
  }
  const inner = innerBlocks(rest)
  if (!thoughts && !inner.thoughts) return { answer: text, thoughts: "", unfinished: false }
  const answer = thoughts ? unwrapped(inner.answer) : inner.answer
  return { answer, thoughts: thoughts + inner.thoughts, unfinished: !answer.trim() && inner.unfinished }
}

/** Where the block at the beginning ends; -1 for one that does not, undefined for none. */
function leading(text: string): number | undefined {
  for (const { open, close } of starts) {
    const begin = open.exec(text)
    if (!begin) continue
    const end = close.exec(text.slice(begin[0].length))
    return end ? begin[0].length + end.index + end[0].length : -1
  }
  return plainChannels.exec(text)?.[0].length
}

/** Where thoughts end that the prompt opened: behind the first closing tag that is not just mentioned; 0 for none. */
function unopened(text: string): number {
  const inCode = codeOf(text)
  for (const { open, close } of paired.slice(0, -1)) {
    const opened = new RegExp(open, "i").exec(text)?.index ?? text.length
    for (const { index, 0: tag } of text.matchAll(new RegExp(close, "gi"))) {
      if (index > opened) break
      if (!/[`"'“‘]/.test(text[index - 1] ?? "") && !inCode(index)) return index + tag.length
    }
  }
  return 0
}

/** Takes out `<think>` blocks that begin a line, outside code; the last one may be cut off. */
function innerBlocks(text: string): SplitReply {
  const inCode = codeOf(text)
  const open = /^[^\S\n]*<think>/gim
  const close = /<\/think>[^\S\n]*\n?/gi
  let answer = ""
  let thoughts = ""
  let done = 0
  for (let at = open.exec(text); at; at = open.exec(text)) {
    if (inCode(at.index)) continue
    close.lastIndex = open.lastIndex
    const end = close.exec(text) ? close.lastIndex : text.length
    const unfinished = !close.lastIndex
    answer += text.slice(done, at.index)
    thoughts += text.slice(at.index, end)
    if (unfinished) return { answer, thoughts, unfinished }
    done = open.lastIndex = end
  }
  return { answer: answer + text.slice(done), thoughts, unfinished: false }
}

/** Says of places, in rising order, whether they lie between the fences of a code block. */
function codeOf(text: string): (at: number) => boolean {
  const fences = [...text.matchAll(/^[^\S\n]*```/gm)].map(({ index }) => index)
  let passed = 0
  return (at) => {
    if (passed && fences[passed - 1]! >= at) passed = 0
    while (passed < fences.length && fences[passed]! < at) passed++
    return passed % 2 === 1
  }
}

/** The answer behind the thoughts: without blank lines before it and without the tags around it. */
function unwrapped(text: string): string {
  let answer = withoutBlankLines(text)
  for (const [open, close] of wrappers) {
    if (answer.startsWith(open)) answer = withoutBlankLines(answer.slice(open.length))
    const end = answer.trimEnd()
    if (end.endsWith(close)) answer = end.slice(0, -close.length)
  }
  return answer
}

/** Without blank lines at the beginning; an indent of the first line with text stays. */
const withoutBlankLines = (text: string) => text.replace(/^(?:[^\S\n]*\n)+|^[^\S\n]+/, "")

/** The opening tag with which a rendered prompt ends, as templates that force thinking write it; empty for none. */
export const openedThoughts = (prompt: string): string => promptEnd.exec(prompt)?.[0] ?? ""

const marks = new RegExp(
  `^(?:${paired
    .slice(0, -1)
    .flatMap(({ open, close }) => [open, close])
    .join("|")}|<\\|(?:channel|message|start)\\|>)$`,
  "i",
)
/** Whether a token marks thoughts. Such a token stays in a model's raw text although it is marked special. */
export const isThoughtMark = (token: string): boolean => marks.test(token)
