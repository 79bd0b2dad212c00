import { behindThoughts, splitThoughts } from "../text/thoughts"
import type { Completion, GenerateRequest, Generator } from "./engine"

/** Reasons why a model that thinks aloud gave no answer. */
export const CUT_IN_THOUGHTS = "cut off inside its thoughts"
const ONLY_THOUGHTS = "thoughts without an answer"

/**
 * One reply as all stages, judges, benchmarks and the chat get it: `text` is the answer alone, `thoughts` is what the
 * model thought. The only way from an engine to its readers, so that no one takes thoughts for an answer.
 * @throws what the engine throws
 */
export async function replyOf(engine: Generator, request: GenerateRequest): Promise<Completion> {
  return withoutThoughts(await engine.generate(request))
}

/** A completion with its thoughts beside the text. Where nothing but thoughts came, `problem` says so. */
export function withoutThoughts(completion: Completion): Completion {
  const { answer: text, thoughts } = splitThoughts(completion.text)
  const all = (completion.thoughts ?? "") + thoughts
  if (!all) return completion
  const answer = thoughts ? text : behindThoughts(text)
  const missing = completion.finish === "length" ? CUT_IN_THOUGHTS : ONLY_THOUGHTS
  const problem = answer.trim() ? completion.problem : (completion.problem ?? missing)
  return { ...completion, text: answer, thoughts: all, ...(problem && { problem }) }
}
