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

// Qwen3, DeepSeek-R1, GLM, SmolLM3, … and, under other names, EXAONE Deep, Reflection, Reka Flash, Seed-OSS, LongCat
const names = [
  ...["think", "thinking", "thought", "thoughts", "reasoning", "reason", "reflection", "scratchpad", "scratch_pad"],
  ...["inner_thoughts", "inner_monologue", "chain_of_thought", "cot", "seed:think", "longcat_think"],
]
const words = "(?:think|thinking|thought|thoughts|reasoning)"
const paired: readonly Marks[] = [
  ...names.map((name) => ({ open: `<${name}(?:\\s[^<>]*)?>`, close: `</${name}\\s*>` })),
  { open: `<\\|${words}\\|>`, close: `<\\|/${words}\\|>` },
  { open: `<\\|(?:begin|start)_of_${words}\\|>`, close: `<\\|end_of_${words}\\|>` },
  { open: `<\\|${words}_(?:begin|start)\\|>`, close: `<\\|${words}_end\\|>` },
  { open: "\\[THINK\\]", close: "\\[/THINK\\]" }, // Magistral
  { open: "◁think▷", close: "◁/think▷" }, // Kimi-VL
  { open: "<\\|START_THINKING\\|>", close: "<\\|END_THINKING\\|>" }, // Command A Reasoning
  { open: "<\\|channel>thought", close: "<channel\\|>" }, // Gemma
  { open: "<unused94>thought", close: "<unused95>" }, // MedGemma
  { open: "<\\|inner_prefix\\|>", close: "<\\|inner_suffix\\|>" }, // Apertus
  { open: "<start_working_out>", close: "<end_working_out>" }, // models trained by GRPO in Unsloth's notebooks
  { open: "<\\|im_start\\|>think", close: "<\\|im_start\\|>answer" }, // s1
  // gpt-oss: everything before the final channel, with its special tokens or without
  {
    open: "(?:<\\|start\\|>assistant)?<\\|channel\\|>(?:analysis|commentary)",
    close: "<\\|channel\\|>final[^<]*(?:<\\|constrain\\|>[^<]*)?<\\|message\\|>",
  },
]

/** Any tag of the first kind: some models close their thoughts by another name. */
const anyName = `(?:${names.join("|")})`
const anyMark = new RegExp(`(?<open><${anyName}(?:\\s[^<>]*)?>)|</${anyName}\\s*>`, "gi")

const starts = paired.map(({ open, close }) => ({
  open: new RegExp(`^\\s*${open}`, "i"),
  marks: new RegExp(`(?<open>${open})|${close}`, "gi"),
}))
/**
 * Thoughts marked by plain words, which count only where both marks are there: many an answer begins with one of them.
 */
const worded = [
  /^analysis[\s\S]*?assistantfinal/, // gpt-oss without special tokens
  /^\s*here(?:['’]s| is) my thought process:[\s\S]*?\bhere(?:['’]s| is) my response:/i, // Granite 3.2
  /^\s*## Thinking\s*\n[\s\S]*?\n## Final Response\s*\n/, // HuatuoGPT-o1
]
/** The head of gpt-oss's final channel where no thoughts come before it. */
const finalHead = /^\s*(?:<\|start\|>assistant)?<\|channel\|>final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>/
const promptEnd = new RegExp(`(?:${paired.map(({ open }) => open).join("|")})\\s*$`, "i")
/** What wraps the answer of some of these models, at its very beginning and end. */
const wrappers = [
  ["<|begin_of_solution|>", "<|end_of_solution|>"],
  ["<|START_RESPONSE|>", "<|END_RESPONSE|>"],
  ["<answer>", "</answer>"], // Hunyuan, R1-Zero and its like
  ["<response>", "</response>"], // Granite 3.3, ERNIE 4.5
  ["<output>", "</output>"], // Reflection, Marco-o1
  ["<solution>", "</solution>"],
  ["<final_answer>", "</final_answer>"],
  ["", "<|return|>"],
  ["", "<|end|>"],
] as const

/**
 * Splits a model's raw text into thoughts and answer. Thoughts are: a block at the beginning, and further ones right
 * behind it; everything up to a closing tag whose opening tag stood in the prompt; and a `<think>` block on lines of
 * its own further down. Tags that an answer merely mentions (inside a line, in code) stay. Blank lines between thoughts
 * and answer go; a text without thoughts comes back as it is.
 */
export function splitThoughts(text: string): SplitReply {
  let rest = text
  let thoughts = ""
  const closing = closingOf()
  for (;;) {
    const block = leading(rest, closing)
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
function leading(text: string, closing: Closing): number | undefined {
  for (const { open, marks } of starts) {
    const begin = open.exec(text)
    if (!begin) continue
    const end = closing(text, begin[0].length, marks)
    return end < 0 && begin[0].endsWith(">") ? closing(text, begin[0].length, anyMark) : end
  }
  return [...worded, finalHead].map((form) => form.exec(text)?.[0].length).find((end) => end !== undefined)
}

type Closing = (text: string, from: number, marks: RegExp) => number

/**
 * Where a block ends whose inside begins at `from`; -1 for nowhere. Blocks may lie in each other. What the rest of a
 * text has not is not looked for again in what follows, as each block would be read to the end of the text.
 */
function closingOf(): Closing {
  let isEven = true
  const without = new Set<RegExp>()
  return (text, from, marks) => {
    if (without.has(marks)) return -1
    const outer = isEven ? outerClosing(text, from, marks) : -1
    if (outer > 0) return outer
    if (outer < 0) isEven = false
    const end = innerClosing(text, from, marks)
    if (end < 0) without.add(marks)
    return end
  }
}

/** The tag that closes the outermost of blocks within each other; 0 for a block without others, -1 for none. */
function outerClosing(text: string, from: number, marks: RegExp): number {
  let depth = 0
  let isNested = false
  marks.lastIndex = from
  for (let mark = marks.exec(text); mark; mark = marks.exec(text)) {
    if (isQuoted(text, mark.index)) continue
    if (mark.groups?.open !== undefined) {
      depth++
      isNested = true
    } else if (depth) depth--
    // An answer may speak of the tag, within a line.
    else return !isNested || /[^\S\n]/.test(text[mark.index - 1]!) ? 0 : marks.lastIndex
  }
  return -1
}

/** The first closing tag. Thoughts may quote it, or speak of it before one on a line of its own. */
function innerClosing(text: string, from: number, marks: RegExp): number {
  let quoted = -1
  let end = -1
  let inCode = (_: number) => false
  marks.lastIndex = from
  for (let mark = marks.exec(text); mark; mark = marks.exec(text)) {
    if (mark.groups?.open !== undefined) {
      if (end >= 0) break
    } else if (end < 0 && isQuoted(text, mark.index)) quoted = quoted < 0 ? marks.lastIndex : quoted
    else if (end < 0) {
      end = marks.lastIndex
      inCode = codeFrom(text, end)
    } else if (isAlone(text, mark.index, marks.lastIndex) && !inCode(mark.index)) end = marks.lastIndex
  }
  return end < 0 ? quoted : end
}

const isAlone = (text: string, begin: number, end: number) =>
  /\n[^\S\n]*$/.test(text.slice(Math.max(0, begin - 20), begin)) && /^[^\S\n]*(?:\n|$)/.test(text.slice(end, end + 20))

const isQuoted = (text: string, at: number) => /[`"'“‘]/.test(text[at - 1] ?? "")

/** Where thoughts end that the prompt opened: behind the first closing tag that is not just mentioned; 0 for none. */
function unopened(text: string): number {
  const inCode = codeOf(text)
  for (const { open, close } of paired.slice(0, -1)) {
    const opened = new RegExp(open, "i").exec(text)?.index ?? text.length
    for (const { index, 0: tag } of text.matchAll(new RegExp(close, "gi"))) {
      if (index > opened) break
      if (!isQuoted(text, index) && !inCode(index)) return index + tag.length
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

/** The same of places behind `first`, looking no further: a text may be a block of thoughts after another. */
function codeFrom(text: string, first: number): (at: number) => boolean {
  let [looked, passed] = [first, 0]
  return (at) => {
    passed += text.slice(looked, at).match(/^[^\S\n]*```/gm)?.length ?? 0
    looked = at
    return passed % 2 === 1
  }
}

/** The answer of a reply whose thoughts came apart from it: servers leave the blank lines between the two. */
export const behindThoughts = (text: string): string => unwrapped(text)

/** The answer behind the thoughts: without blank lines before it and without the tags around it. */
function unwrapped(text: string): string {
  let answer = withoutBlankLines(text)
  for (const [open, close] of wrappers) {
    if (open && isSame(answer.slice(0, open.length), open)) answer = withoutBlankLines(answer.slice(open.length))
    const end = answer.trimEnd()
    if (isSame(end.slice(-close.length), close)) answer = end.slice(0, -close.length)
  }
  return answer
}

/** Some models write their tags with capitals. */
const isSame = (text: string, tag: string) => text.toLowerCase() === tag.toLowerCase()

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
