import type { AnyStage, Call, Failure, InstructionRow, Message, StageName } from "../data/schema"
import type { Completion, GenerateRequest, Generator, Sampling } from "../engine/engine"
import { replyOf } from "../engine/reply"
import { InputError, RefusedError } from "../errors"
import { streamKey } from "../rng"

/** A row that goes no further: what it had when it failed, and why. */
export type FailedRow = InstructionRow & { failure: Failure }

/** What a stage makes of a row. `failure` tells the two apart. */
export type Outcome<Row> = (Row & { failure?: undefined }) | FailedRow

/**
 * Whether a row passed. `row.failure` says it too, but compilers without strict null checks, such as that of plain
 * tslab, learn nothing from it.
 */
export const hasPassed = <Row extends object>(row: Row | FailedRow): row is Row => !("failure" in row && row.failure)

/**
 * Calls that a stage makes for one row: the model, and the random stream (run seed, stage, row) that answers come from.
 */
export interface Asker {
  engine: Generator
  seed: number
  stage: string
  id: string
}

/** Where all of so many first requests are refused, it is no matter of single rows. */
const HOPELESS = 3
const refusals = new WeakMap<object, { requests: number; firstRefused: number }>()

/**
 * One call for a row. A request that the engine refuses (too long for it, stopped by a filter) is a call with that
 * problem, so that its row alone fails. `sample` numbers the calls of a stage for this row, each with a random stream
 * of its own.
 * @throws InputError when an engine refuses its first requests, all of them
 */
export async function ask(
  { engine, seed, stage, id }: Asker,
  prompt: string | readonly Message[],
  sampling: Sampling,
  sample: string | number = 0,
): Promise<Call> {
  const messages = typeof prompt === "string" ? [{ role: "user" as const, content: prompt }] : prompt
  const request = { messages, ...sampling, seed: streamKey(seed, stage, id, sample) }
  const { text, thoughts, tokens, finish, problem } = await replyOrRefusal(engine, request)
  const lastQuestion = messages.filter((message) => message.role === "user").at(-1)?.content ?? ""
  return { prompt: lastQuestion, text, ...(thoughts && { thoughts }), tokens, finish, ...(problem && { problem }) }
}

async function replyOrRefusal(engine: Generator, request: GenerateRequest): Promise<Completion> {
  const reply = await orRefusal(engine, () => replyOf(engine, request))
  return reply instanceof Refused ? { text: "", tokens: 0, finish: "stop", problem: reply.reason } : reply
}

/** Why an engine refused a request, as a reason for its row to fail. */
export class Refused {
  constructor(readonly reason: string) {}
}

/**
 * What an engine answers, or that it refuses this request.
 * @throws InputError when an engine refuses its first requests, all of them; what else the engine throws
 */
export async function orRefusal<T>(engine: object, work: () => Promise<T>): Promise<T | Refused> {
  const counts = refusals.get(engine) ?? { requests: 0, firstRefused: 0 }
  refusals.set(engine, counts)
  const among = counts.requests++ < HOPELESS
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof RefusedError)) throw error
    if (among && ++counts.firstRefused === HOPELESS) {
      throw new InputError(`all of the first ${HOPELESS} requests were refused: ${error.message}`, {}, { cause: error })
    }
    return new Refused(`request refused: ${error.reason ?? error.message}`)
  }
}

/** The row with the raw calls of a stage noted in it. */
export function withCalls<Row extends InstructionRow>(row: Row, stage: AnyStage, calls: readonly Call[]): Row {
  return { ...row, calls: { ...row.calls, [stage]: [...calls] } }
}

/** The row with the reason why it goes no further. Reasons are fixed texts, so that they can be counted. */
export function failed(row: InstructionRow, stage: AnyStage, reason: string): FailedRow {
  return { ...row, failure: { stage, reason } }
}

/** True when two texts have the same words, whatever their case, spaces and punctuation. */
export function sameWords(a: string, b: string): boolean {
  const words = (text: string) =>
    text
      .toLowerCase()
      .match(/[\p{L}\p{N}]+/gu)
      ?.join(" ") ?? text.trim()
  return words(a) === words(b)
}

/** The reason for passing over a reply that the token limit cut off. */
export const CUT = "cut off at the token limit"

/** Why the replies of some calls cannot be used, the first reason among them; cut ones can where `keepCut` says so. */
export function problemOf(calls: readonly Call[], keepCut = false): string | undefined {
  const cut = !keepCut && calls.some(({ finish }) => finish === "length")
  return calls.find(({ problem }) => problem)?.problem ?? (cut ? CUT : undefined)
}

/** Stages in the order of their making, each with the field that its rows get. */
const stageFields = {
  source: "instruction",
  decompose: "constraints",
  corrupt: "noised_constraints",
  recombine: "noised_instruction",
  respond: "rejected",
  weigh: "weights",
} satisfies Partial<Record<StageName, string>>
type FieldStage = keyof typeof stageFields
export const stageOrder = Object.keys(stageFields) as FieldStage[]

/** @throws InputError for a row of an earlier stage than the one that is wanted, which says what to run first */
export function requireStage(row: object, wanted: FieldStage, file: string): void {
  const last = [...stageOrder].reverse().find((stage) => stageFields[stage] in row)
  if (last === undefined || stageOrder.indexOf(last) >= stageOrder.indexOf(wanted)) return
  const got = last === "source" ? "instructions without more" : `rows of \`musc ${last}\``
  const next = stageOrder[stageOrder.indexOf(last) + 1]
  throw new InputError(`must hold rows of \`musc ${wanted}\`, got ${got}; run \`musc ${next}\` on this file first`, {
    file,
  })
}
