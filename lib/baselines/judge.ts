import type { Message } from "../data/schema"
import { isNoVerdict } from "../eval/judge"
import { blocks, type Demonstration, fewShot, fields } from "../musc/prompt"

/**
 * User message that asks whether an answer satisfies one constraint, the question. The question comes before the
 * answer, so that the answer is read with it in mind, and the evidence before the verdict: a verdict alone is one
 * token, which small models guess. The judge sees the instruction (and the text that it is about), as in the released
 * code and in ComplexBench: "Is the answer a summary of the given message?" cannot be judged without. Null leaves it
 * out, which is the prompt that the embedded model was trained on.
 */
export function judgePrompt(
  question: string,
  input: string | null,
  answer: string,
  instruction: string | null = null,
): string {
  const task =
    instruction === null
      ? "Judge the answer by the question."
      : "Judge the answer to the instruction by the question alone."
  return blocks(
    `${task} Quote what decides it in the answer, or write nothing, then write yes or no on a line of its own.`,
    fields({ Instruction: instruction }),
    instruction !== null && fields({ Text: input }),
    fields({ Question: question }),
    instruction === null && fields({ Input: input }),
    fields({ Answer: answer }),
  )
}

/** `judgePrompt` behind the first `shots` of its demonstrations, 0 to 4. */
export function judgeMessages(
  question: string,
  input: string | null,
  answer: string,
  shots: number,
  instruction: string | null = null,
): Message[] {
  const examples = demos.slice(0, shots).map((demo): Demonstration => {
    const instructionForText = instruction === null ? null : demo.instruction
    return [judgePrompt(demo.question, null, demo.answer, instructionForText), demo.reply]
  })
  return fewShot(examples, judgePrompt(question, input, answer, instruction))
}

const demos = [
  {
    instruction:
      "Write a short letter to a neighbour who watered your tomatoes. Thank her, and offer something in return.",
    question: "Is the answer a letter to a neighbour?",
    answer: "Dear Mrs. Okafor, thank you for watering my tomatoes all week. I owe you a jar of sauce! Your Emil",
    reply: '"Dear Mrs. Okafor, thank you for watering my tomatoes"\nyes',
  },
  {
    instruction: "Describe a lamp for a catalogue in one sentence. Name its size, its material and its price.",
    question: "Does the answer name a price?",
    answer: "The lamp is small, made of blue glass, and bright enough to read by.",
    reply: "nothing\nno",
  },
  {
    instruction: "Explain in two numbered steps how to make dough rise. Do not use the word never.",
    question: "Is the answer free of the word never?",
    answer: "1. Knead the dough for ten minutes.\n2. Let it rest, but never in the sun.",
    reply: '"but never in the sun"\nno',
  },
  {
    instruction: "Tell a story of exactly two sentences that plays on a pier.",
    question: "Does the answer have exactly two sentences?",
    answer: "The ferry was late again. We shared an orange on the pier.",
    reply: '"The ferry was late again." "We shared an orange on the pier."\nyes',
  },
] as const

/** To be raised when replies are read otherwise: verdicts are kept on disk. */
export const verdictVersion = 3

/**
 * The verdict of a reply, which quotes the answer and then says yes or no: what its last line is, else what that begins
 * with, else what the reply begins with, unless that is a quotation. yes true, no false; undefined when none of them
 * says. A reply that the token limit cut off has no last line, and its last word may be part of a longer one. A line
 * such as "No faults found." says neither.
 */
export function parseVerdict(text: string, cut = false): boolean | undefined {
  const lines = (cut ? text.replace(/\S*$/, "") : text).trim().split("\n")
  const last = cut ? "" : words(lines.at(-1)!)
  const begins = /^\s*["'“‘«>]/.test(text) ? "" : words(lines[0]!)
  const label = "(?:(?:the )?(?:final )?(?:answer|verdict|judg(?:e)?ment)(?: is)? )?"
  const start = new RegExp(`^${label}(yes|no)\\b`)
  const verdict = (new RegExp(`^${label}(yes|no)$`).exec(last) ?? start.exec(last) ?? start.exec(begins))?.[1]
  return verdict === undefined ? undefined : verdict === "yes"
}

/** The words of a line in small letters, without marks; a bracketed or boxed word counts. */
const words = (line: string) =>
  (isNoVerdict(line) ? "" : line)
    .toLowerCase()
    .replace(/\\(?:boxed|text)\b/g, "")
    .replace(/[^a-z]+/g, " ")
    .trim()
