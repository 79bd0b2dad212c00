import { InputError } from "../errors"
import type { Completion, GenerateRequest, Generator } from "./engine"

/** One answer of a script: the text, or text with the reason why it ended, or an error to throw. */
export type ScriptedAnswer = string | Partial<Completion> | Error

/** A generator that answers from a script and keeps what it was asked. */
export interface ScriptedGenerator extends Generator {
  /** Every request so far, in the order of arrival. */
  readonly requests: readonly GenerateRequest[]
}

/**
 * A Generator without a model, for tests and teaching. `script` is a function from the request to the answer, or
 * answers by exact user message (the last one); it never depends on the order of calls.
 * @throws InputError (from `generate`) for a message that the script does not hold.
 */
export function scripted(
  script:
    | ((request: GenerateRequest) => ScriptedAnswer | Promise<ScriptedAnswer>)
    | Readonly<Record<string, ScriptedAnswer>>,
  { name = "scripted", concurrency = 8 } = {},
): ScriptedGenerator {
  const requests: GenerateRequest[] = []
  const answerTo = typeof script === "function" ? script : (request: GenerateRequest) => lookUp(script, request)
  return {
    name,
    concurrency,
    requests,
    async generate(request) {
      requests.push(request)
      const answer = await answerTo(request)
      if (answer instanceof Error) throw answer
      const { text = "", finish = "stop", ...rest } = typeof answer === "string" ? { text: answer } : answer
      return { ...rest, text, finish, tokens: rest.tokens ?? text.split(/\s+/).filter(Boolean).length + 1 }
    },
  }
}

function lookUp(script: Readonly<Record<string, ScriptedAnswer>>, { messages }: GenerateRequest): ScriptedAnswer {
  const question = messages.at(-1)?.content ?? ""
  if (Object.hasOwn(script, question)) return script[question]!
  throw new InputError(`the script must hold an answer to ${JSON.stringify(question.slice(0, 80))}, got none; add it`)
}
