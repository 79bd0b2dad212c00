import type { DecomposedRow, InstructionRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import { type DecomposeDemo, decomposeDemos } from "./demos"
import { blocks, type Demonstration, fewShot, fields, shotsFor } from "./prompt"
import { ask, CUT, failed, type Outcome, withCalls } from "./row"

/** How an instruction is decomposed. */
export interface DecomposeOptions {
  /** Run seed, any integer. */
  seed: number
  /** Few-shot examples shown, 0 to 5; paper 5. A model that takes fewer gets fewer if not given. */
  shots: number
  /** Sampling temperature, 0 to 1; paper .1. */
  temperature: number
  /** Most tokens of the reply, 128 to 4096. */
  maxTokens: number
  /**
   * Whether the model also looks for a text that the instruction holds ("Translate this: ..."), where the row has no
   * `input` of its own: chats and self-instructed rows have it inside the instruction, and it would be lost. The paper
   * does it. If not given, a model does it unless it takes no examples, as the embedded one.
   */
  findText?: boolean
}

/** The paper's: five examples, temperature .1. */
export const decomposeDefaults: DecomposeOptions = {
  seed: 0,
  shots: 5,
  temperature: 0.1,
  maxTokens: 1024,
}

/** User message that asks for the constraints of an instruction; with `findText`, also for a text that it holds. */
export function decomposePrompt(row: { instruction: string; input: string | null }, findText = false): string {
  const question = findText
    ? `Instruction: ${blocks(row.instruction, row.input)}`
    : fields({ Instruction: row.instruction, Text: row.input })
  return blocks(
    "Split the instruction into its constraints. Write each as a yes/no question about the answer, one a line, " +
      "starting with ##1. for the task itself.",
    findText && "Then repeat the text that the instruction works on, after Text:, or write none.",
    `${question}\nQuestions:`,
  )
}

/** Examples; with `findText`, the text stands inside the instruction and the reply repeats it after the questions. */
function demonstrations(demos: readonly DecomposeDemo[], findText: boolean): Demonstration[] {
  return demos.map((demo) => [
    decomposePrompt(demo, findText),
    formatConstraints(demo.questions) + (findText ? `\nText: ${demo.input ?? "none"}` : ""),
  ])
}

/** Lines of the form `##1. question`. */
export function formatConstraints(questions: readonly string[]): string {
  return questions.map((question, i) => `##${i + 1}. ${question}`).join("\n")
}

/**
 * The questions of a reply. Reads `##1. question`, on lines of their own or run together, and otherwise plain numbered
 * lines; anything around them is passed over, repeats (but for case and spaces) are dropped.
 */
export function parseConstraints(text: string): string[] {
  const distinct = new Set<string>()
  return questionsIn(text).filter(
    (question) => !distinct.has(question.toLowerCase()) && distinct.add(question.toLowerCase()),
  )
}

/** The questions of a reply as they stand there, repeated ones too. */
function questionsIn(text: string): string[] {
  const marked = text.split(/##\s*\d+\s*[.):]/).slice(1)
  // Blanks within a line alone: from each of many empty lines a pattern would look at all those below it.
  const numbered = /^[^\S\r\n\u2028\u2029]*\d+\s*[.):](.*)$/gm
  const items = marked.length ? marked : [...text.matchAll(numbered)].map((match) => match[1]!)
  return items
    .map((part) => part.trim().split("\n")[0]!.replaceAll("**", "").replace(/\s+/g, " ").trim())
    .filter((question) => question)
}

/**
 * The text that a reply names after `Text:`, as it stands in the instruction; null when it names none, or one that the
 * instruction does not hold (models make texts up).
 */
export function parseText(reply: string, instruction: string): string | null {
  const textPart = /^Text:\s*([\s\S]+)$/m.exec(reply)?.[1]?.trim()
  return textPart && !/^none\.?$/i.test(textPart) && instruction.includes(textPart) ? textPart : null
}

/**
 * Stage 1 (paper: instruction decomposition). Rejects a reply of fewer than 2 constraints and one that was cut off
 * before it repeated itself. The text found stays apart as `input` and later follows the recombined instruction word by
 * word, where the released code has the model write it out again. Constraints that the seed file brings are passed on
 * without a call, and the row says so.
 */
export async function decompose(
  engine: Generator,
  row: InstructionRow,
  options: Partial<DecomposeOptions> = {},
): Promise<Outcome<DecomposedRow>> {
  const { seed, temperature, maxTokens, findText } = { ...decomposeDefaults, ...options }
  const shots = shotsFor(engine, options.shots, decomposeDefaults.shots)
  const questions = row.constraints?.map((question) => question.trim()).filter((question) => question)
  if (questions?.length === 1) return failed(row, "decompose", "fewer than 2 constraints in the seed file")
  if (questions?.length) return { ...row, constraints: questions, decomposed_by: "seed file", failure: undefined }
  const search = (findText ?? engine.maxShots !== 0) && !row.input
  const messages = fewShot(demonstrations(decomposeDemos.slice(0, shots), search), decomposePrompt(row, search))
  const call = await ask({ engine, seed, stage: "decompose", id: row.id }, messages, { temperature, maxTokens })
  const noted = withCalls(row, "decompose", [call])
  if (call.problem) return failed(noted, "decompose", call.problem)
  const cut = call.finish === "length"
  const whole = cut ? call.text.slice(0, call.text.lastIndexOf("\n") + 1) : call.text
  const constraints = parseConstraints(whole)
  // A list that has begun to repeat itself has nothing more to say, so being cut off there loses nothing.
  const repeats = questionsIn(whole).length > constraints.length
  if (cut && !repeats) return failed(noted, "decompose", CUT)
  if (constraints.length < 2) return failed(noted, "decompose", "fewer than 2 constraints")
  const input = search ? parseText(call.text, row.instruction) : row.input
  return { ...noted, input, constraints, failure: undefined }
}
