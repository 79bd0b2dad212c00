import type { GenerateRequest } from "../../lib/engine/engine"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { parseConstraints } from "../../lib/musc/decompose"
import { rng } from "../../lib/rng"
import { readInstruction, readQuestion } from "../../lib/world/inverse"
import { type Constraint, negate, questionOf, satisfies } from "../../lib/world/kinds"
import { realise } from "../../lib/world/realise"
import { instructionOf, sampleSpec, substitute, wordSpec } from "../../lib/world/spec"
import { fixture } from "./tensors"

export interface OracleModel extends LocalModel {
  /** Calls so far by task. */
  calls: Record<string, number>
}

/** The last block of a prompt that stands behind a label. */
const behind = (prompt: string, label: string, end: string) =>
  prompt.slice(prompt.lastIndexOf(label) + label.length, prompt.length - end.length)

const tasks: Record<string, (prompt: string, seed: number) => string> = {
  "Split the": (prompt) =>
    readInstruction(behind(prompt, "Instruction: ", "\nQuestions:"))!
      .map((item, i) => `##${i + 1}. ${questionOf(item)}`)
      .join("\n"),
  "Write one instruction": (prompt, seed) => {
    const asked = parseConstraints(behind(prompt, "Questions:", "\nInstruction:")).map(
      (question) => readQuestion(question)!,
    )
    return instructionOf(wordSpec(asked, rng(seed)))
  },
  "Write one new instruction": (_, seed) => instructionOf(sampleSpec(6, "train", rng(seed))),
  "Read the instruction and the answer. The answer gets": () => "It is fine.",
  "Judge the answer": (prompt) => {
    const [question, answer] = behind(prompt, "\n\nQuestion: ", "").split("\n\nAnswer: ") as [string, string]
    return satisfies(readQuestion(question)!, answer) ? "Yes" : "no."
  },
  "The answer to the instruction gets a no": (prompt, seed) => {
    const asked = readInstruction(prompt.slice(prompt.indexOf("Instruction: ") + 13, prompt.indexOf("\n\nAnswer: ")))!
    return realise({ constraints: asked }, rng(seed))
  },
  "Change the question so that it asks for the opposite": (prompt) => questionOf(negate(questionIn(prompt))),
  "Change the question so that it asks for something": (prompt, seed) =>
    questionOf(substitute(questionIn(prompt), [], rng(seed))),
}
const questionIn = (prompt: string): Constraint =>
  readQuestion(behind(prompt, "\nQuestion: ", "\nNew question:").replace(/^.*Question: /s, ""))!

/**
 * A model that does every task of the embedded world as it should, but for a third of the constraints that its answers
 * overlook. It scores and trains with the weights of a tiny Llama.
 */
export function oracleModel(change: (request: GenerateRequest) => void | Promise<void> = () => {}): OracleModel {
  const local = openLocal(fixture("llama"))
  // The real one is a hash that asks for the backend, which need not be chosen yet.
  Object.defineProperty(local, "fingerprint", { value: "oracle", enumerable: true })
  const calls: Record<string, number> = {}
  return {
    ...local,
    fingerprint: "oracle",
    calls,
    engine(lora, options) {
      const real = local.engine(lora, options)
      return {
        ...real,
        concurrency: 4,
        maxShots: 0,
        async generate(request) {
          const prompt = request.messages.at(-1)!.content
          const task = Object.keys(tasks).find((head) => prompt.startsWith(head))
          calls[task ?? "respond"] = (calls[task ?? "respond"] ?? 0) + 1
          await change(request)
          const answer = task
            ? tasks[task]!(prompt, request.seed)
            : realise(
                { constraints: readInstruction(prompt)! },
                rng(request.seed),
                (_, i) => rng(request.seed, i).next() < 0.66,
              )
          return { text: answer, tokens: 1, finish: "stop" }
        },
      }
    },
  }
}
