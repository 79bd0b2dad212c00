import { z } from "zod"

/**
 * Every record, declared once: type, parser and documentation. A row travels through the stages and grows; fields that
 * we do not know are kept. A row that fails a stage keeps what it has, gets a `failure`, and is passed over from then
 * on.
 */

/** One chat message. */
export const message = z.object({ role: z.enum(["system", "user", "assistant"]), content: z.string() })
/** A chat message, as chat templates and servers take it. @interface */
export type Message = z.infer<typeof message>

/** Whether a part of a message's content holds the model's thoughts, by the types that servers give such parts. */
export const isThoughtPart = (part: { type?: unknown } | null | undefined): boolean =>
  typeof part?.type === "string" && /thinking|reasoning/.test(part.type)

/**
 * The text of a message's content: a string, or a list of text parts as servers and data sets write it, put together.
 */
export const textContent = z.unknown().transform((content, context): string => {
  if (typeof content === "string") return content
  const texts = (Array.isArray(content) ? content : [null]).map((part) => {
    const text: unknown = typeof part === "string" ? part : part?.text
    return typeof text === "string" && !isThoughtPart(part) ? text : undefined
  })
  if (!texts.includes(undefined)) return texts.join("")
  const got = Array.isArray(content)
    ? `a list with ${content.map((part) => part?.type ?? typeof part).join(", ")}`
    : content === null || content === undefined
      ? "nothing"
      : typeof content
  context.addIssue({ code: "custom", message: `expected text or a list of text parts, got ${got}` })
  return z.NEVER
})

/**
 * One call of a model: the user prompt that was sent and what came back. `thoughts` and `text` together are all of it.
 */
const call = z.object({
  prompt: z.string().describe("last user message as sent, before the chat template, without demonstrations"),
  text: z.string().describe("raw text of the reply, untrimmed, without the model's thoughts"),
  thoughts: z.string().optional().describe("what a model that thinks aloud wrote before its reply, raw"),
  tokens: z.int().describe("tokens generated, end-of-turn included"),
  finish: z.enum(["stop", "length"]).describe("length: cut off at the token limit"),
  problem: z.string().optional().describe("why there is no reply to use: only thoughts, a refusal, a filter, …"),
})
/** One request to a model with its reply, kept in the row that it was made for. @interface */
export type Call = z.infer<typeof call>

/** Names of the stages that make pairs, in their order. */
export const stageName = z.enum(["source", "decompose", "corrupt", "recombine", "respond", "verify", "weigh"])
/** Name of a stage that makes pairs. */
export type StageName = z.infer<typeof stageName>

/** Stages of the baselines, behind decompose. */
const baselineStageName = z.enum(["sample", "judge", "select", "revise"])

const anyStage = z.enum([...stageName.options, ...baselineStageName.options])
export type AnyStage = z.infer<typeof anyStage>

/** Why a row went no further. */
export const failure = z.object({ stage: anyStage, reason: z.string() })
/** The stage at which a row failed, and why. Later stages leave such a row alone. @interface */
export type Failure = z.infer<typeof failure>

/** Stage 0: an instruction to start from. */
export const instructionRow = z.looseObject({
  id: z.string().min(1),
  instruction: z.string().min(1),
  input: z.string().nullable().default(null).describe("a text that the instruction is about, if any"),
  source: z.string().default("unknown").describe("seed file and line, or self-instruct"),
  constraints: z
    .array(z.string())
    .optional()
    .describe("yes/no questions that a seed file brings; the first is the task"),
  decomposed_by: z.enum(["seed file", "world"]).optional().describe("where the constraints are not the model's work"),
  calls: z.record(z.string(), z.array(call)).default({}).describe("raw calls by stage"),
  failure: failure.optional(),
})
/** An instruction to start from: input of stage 1. @interface */
export type InstructionRow = z.infer<typeof instructionRow>

/** Stage 1: constraints as yes/no questions; constraint 0 is the task itself. */
export const decomposedRow = instructionRow.extend({ constraints: z.array(z.string()).min(2) })
/** Row after stage 1, `decompose`: `constraints[0]` is the task itself. @interface */
export type DecomposedRow = z.infer<typeof decomposedRow>

export const editKind = z.enum(["constraint-dropout", "constraint-negate", "constraint-substitute"])
export type EditKind = z.infer<typeof editKind>

/** One corrupted constraint. `after` is null when it was dropped. */
const edit = z.object({
  index: z.int().min(1).describe("position in `constraints`"),
  kind: editKind,
  before: z.string(),
  after: z.string().nullable(),
})
/** One corrupted constraint: its index, the kind of edit, the question before and after (null: dropped). @interface */
export type Edit = z.infer<typeof edit>

/** Stage 2: the same constraints, some corrupted. */
export const corruptedRow = decomposedRow.extend({
  noised_constraints: z.array(z.string()).min(1),
  edits: z.array(edit).min(1),
})
/** Row after stage 2, `corrupt`. @interface */
export type CorruptedRow = z.infer<typeof corruptedRow>

/** Stage 3: both constraint lists written out as instructions again. */
export const recombinedRow = corruptedRow.extend({ clean_instruction: z.string(), noised_instruction: z.string() })
/** Row after stage 3, `recombine`. @interface */
export type RecombinedRow = z.infer<typeof recombinedRow>

/** Stage 4: chosen answers the clean instruction, rejected the noised one; the prompt of the pair is the clean one. */
export const pairRow = recombinedRow.extend({ chosen: z.string().min(1), rejected: z.string().min(1) })
/** Row after stage 4, `respond`: a preference pair. Its prompt is `clean_instruction`. @interface */
export type PairRow = z.infer<typeof pairRow>

const perToken = z.array(z.number())

/**
 * Signals of one answer, one number a response token (end-of-turn included), in nats. Prompts: clean, noised, empty.
 */
export const tokenSignals = z.object({
  tokens: z.array(z.string()).describe("text of each response token"),
  logprob: perToken.describe("log p_clean(y_t)"),
  logprob_noised: perToken,
  logprob_empty: perToken,
  entropy: perToken.describe("H(p_clean)"),
  entropy_noised: perToken,
  kl: perToken.describe("KL(p_clean || p_noised)"),
  kl_reverse: perToken.describe("KL(p_noised || p_clean)"),
})
/** Signals of one answer, in nats: each list has one number for each response token. @interface */
export type TokenSignals = z.infer<typeof tokenSignals>

/** Token weights of both answers under one weighting: non-negative, at most 2. */
const pairWeights = z.object({ chosen: perToken, rejected: perToken })
/**
 * Token weights of both answers: one number from 0 to 2 for each response token, the end-of-turn token included.
 * @interface
 */
export type PairWeights = z.infer<typeof pairWeights>

/** Stage 5: signals of both answers and the weights that each asked-for weighting makes of them. */
export const weighedRow = pairRow.extend({
  signals: z.object({ chosen: tokenSignals, rejected: tokenSignals }),
  weights: z.record(z.string(), pairWeights),
  rejected_from: z
    .enum(["noised", "clean"])
    .optional()
    .describe("the prompt that the rejected answer was sampled from, if not the noised one"),
})
/**
 * Row after stage 5, `weigh`: a pair with token signals, and token weights by weighting. Input of `trainAdapter`.
 * @interface
 */
export type WeighedRow = z.infer<typeof weighedRow>
