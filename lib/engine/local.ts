import { resolve } from "node:path"
import type { TokenSignals } from "../data/schema"
import { breathe, endable, turn } from "../data/stop-signals"
import { currentDevice } from "../device/device"
import { tf, valuesOf } from "../device/tf"
import { BackendError, RefusedError } from "../errors"
import type { ModelConfig } from "../model/config"
import { planFor } from "../model/executor"
import type { Generated } from "../model/generate"
import { batchInvariantPadding, contrast, pack, responseLogProbs, type Sequence } from "../model/logprobs"
import { bind, type Lora, release } from "../model/lora"
import { localFolder, modelTraits } from "../model/traits"
import { type Bound, type Model, type Params, sizeOf } from "../model/transformer"
import { loadModel } from "../model/weights"
import { chatStop, encodeChats, encodePrompt, renderChat } from "../text/chat"
import { openedThoughts } from "../text/thoughts"
import type { Tokenizer } from "../text/tokenizer"
import { batching } from "./batcher"
import { ContinuousWriter } from "./continuous"
import { describeModel, type ModelDescription } from "./description"
import type { Completion, GenerateRequest, ScoreRequest, Scorer } from "./engine"
import { Prefixes, sharedIds } from "./prefixes"
import { sentLora } from "./sent"
import { openPool, type WorkerPool } from "./workers"

/** A checkpoint in this process. */
export interface LocalModel extends ModelDescription {
  model: Model
  /** Processes that its engines work with, and its training; null where all is done in this one. @internal */
  pool: WorkerPool | null
  /** Writes and scores with the model, with `lora` added if given; `dispose` frees what that took, not the model. */
  engine(lora?: Lora | null, options?: LocalOptions): LocalEngine
}

/** How an engine of a model in this process works. */
export interface LocalOptions {
  /** answers under way at once; by default 16 to 128, as many as the model's keys and values allow (`usualSlots`) */
  batchSize?: number
  /** called with the tokens that each step made */
  onTokens?: (count: number) => void
  /** stops generation between steps with StoppedError */
  signal?: AbortSignal
}

/** An engine in this process: generates text and scores tokens. Call `dispose` when it is no longer needed. */
export type LocalEngine = Scorer & {
  /** Decoding steps of this process so far, and rows that they were of, for measurements. */
  readonly totals: Readonly<{ steps: number; rows: number }>
  dispose(): void
}

/** Bytes that keys and values of all answers under way may take, and tokens of an answer with its prompt. */
const [cacheBytes, usualTokens] = [2 ** 30, 512]

/** Answers under way at once: more of them share each read of the weights, until their keys and values fill memory. */
export function usualSlots({ layers, kvHeads, headDim }: ModelConfig): number {
  const answer = usualTokens * layers * 2 * kvHeads * headDim * Float32Array.BYTES_PER_ELEMENT
  return Math.min(128, Math.max(16, 8 * Math.floor(cacheBytes / answer / 8)))
}

/** Texts that are scored as one batch, of models above 100 M parameters and below. */
const scoredTogether = (size: number) => (size > 100e6 ? 4 : 32)

/** How a model is opened, and who is told. */
export interface OpenOptions {
  onLoad?: (done: number, total: number) => void
  /** called with what a user should know about the folder; by default a warning of the process */
  onNote?: (line: string) => void
  /**
   * Worker processes that generate and score, each with a copy of the model: 1 (if not given) for this one alone, 0 for
   * as many as fit the machine (`usualWorkers`) once there is enough to do. Results are the same whatever their number.
   * Always 1 in notebooks.
   */
  workers?: number
  /** whether the model thinks, for chat templates with `enable_thinking`; by default as the template has it */
  thinking?: boolean
}

const warn = (line: string) => process.emitWarning(line)

/**
 * Loads a Hugging Face folder, or by its name a model that comes with musc (`world`, `world-small`). The backend must
 * have been chosen (`useBackend`).
 * @throws BackendError before that; CheckpointError, InputError naming the file that is missing, broken or not
 * supported
 */
export function openLocal(
  nameOrFolder: string,
  { onLoad, onNote = warn, workers = 1, thinking }: OpenOptions = {},
): LocalModel {
  if (!Object.keys(tf.engine().registryFactory).length)
    throw new BackendError("backend: one must be chosen before a model is opened, got none; call `await useBackend()`")
  const dir = localFolder(nameOrFolder) ?? nameOrFolder
  const { shots } = modelTraits(dir)
  const description = describeModel(dir, { thinking })
  const { name, tokenizer } = description
  const model = endable(() => loadModel(dir, description.config, { onTensor: onLoad, onNote }))
  if (tokenizer.note) onNote(tokenizer.note)
  const size = sizeOf(model.params)
  const pool = openPool(workers, size, resolve(dir), thinking)
  const shared = { name, model, tokenizer, size, pool, maxShots: shots }
  return Object.assign(description, {
    config: model.config, // what the weights make of it, such as a head of its own
    model,
    pool,
    engine: (lora: Lora | null = null, options: LocalOptions = {}) => localEngine(shared, lora, options),
  })
}

/** What the engines of a model share. */
interface Shared {
  name: string
  model: Model
  tokenizer: Tokenizer
  /** parameters */
  size: number
  pool: WorkerPool | null
  maxShots?: number
}

function localEngine(
  { name, model, tokenizer, size, pool, maxShots }: Shared,
  lora: Lora | null,
  options: LocalOptions,
): LocalEngine {
  const bound = bind(model, { lora, plan: planFor(size, { kind: "generate" }) })
  const scoring: Bound = { ...bound, plan: planFor(size, { kind: "score" }) }
  const slots = options.batchSize ?? usualSlots(model.config)
  // The adapter is read when processes start; a clone stays what it is until then.
  const adapterCopy = pool && lora && { ...lora, params: cloned(lora.params) }
  const helpers = pool?.open(async () => ({ lora: adapterCopy && (await sentLora(adapterCopy)), batchSize: slots }), {
    ...options,
    slots,
  })
  let asked = 0
  const outside = () => pool?.worth(asked * size) ?? false
  const lanes = () => (outside() ? pool!.size : 1)
  const encoded = new WeakMap<ScoreRequest, Encoded>()
  const prefixes = new Prefixes(bound)
  const eosIds = chatStop(tokenizer).ids
  const writer = new ContinuousWriter(bound, prefixes, {
    ...{ slots, eosIds, onTokens: options.onTokens },
    // Read again each time: in notebooks it is that of the cell under way.
    get signal() {
      return options.signal
    },
  })
  const score = batching<ScoreRequest, TokenSignals[] | RefusedError>(
    async (requests) => {
      if (outside()) return (await helpers!.run("score", requests)) as (TokenSignals[] | RefusedError)[]
      await turn()
      return scoreAll(
        scoring,
        tokenizer,
        requests.map((request) => encoded.get(request) ?? encodeScored(tokenizer, request)),
      )
    },
    {
      maxBatch: options.batchSize ? Math.max(1, options.batchSize >> 2) : scoredTogether(size),
      lanes,
      order: rowLength,
    },
  )
  return {
    name,
    concurrency: 4 * slots * (pool?.size ?? 1),
    maxShots,
    independent: !currentDevice().gpu,
    totals: writer.totals,
    async generate(request) {
      asked += request.maxTokens
      await turn() // all calls of this turn count
      if (outside()) return answered((await helpers!.run("generate", [request]))[0] as Completion | RefusedError)
      await breathe()
      const { item, prefix, answer } = generation(tokenizer, request)
      return answer(await writer.write(prefix, item))
    },
    async score(request) {
      asked += scoreTokens
      // A text that cannot be encoded fails its own row, not the batch.
      if (!outside()) {
        await breathe()
        encoded.set(request, encodeScored(tokenizer, request))
      }
      return answered(await score(request))
    },
    dispose() {
      helpers?.close()
      if (adapterCopy) tf.dispose(adapterCopy.params)
      prefixes.dispose()
      release(bound)
    },
  }
}

/** The answer, or the refusal of this request alone. */
function answered<T>(answer: T | RefusedError): T {
  if (answer instanceof RefusedError) throw answer
  return answer
}

/** Characters of the longest row that is read for a pair: alike in length, pairs take little padding. */
const rowLength = ({ clean, noised, responses }: ScoreRequest): number =>
  Math.max(...[clean, noised].map((messages) => messages.reduce((n, { content }) => n + content.length, 0))) +
  responses.reduce((n, response) => n + response.length, 0)

/** A scored pair takes about as long as writing so many tokens. */
const scoreTokens = 20

const cloned = (params: Params): Params =>
  Object.fromEntries(Object.entries(params).map(([name, tensor]) => [name, tensor.clone()]))

/** What a request is to the model, and the answer that its tokens are. */
function generation(tokenizer: Tokenizer, request: GenerateRequest) {
  const stop = chatStop(tokenizer)
  // An end-of-turn token is no part of the text, whether it is marked special or not.
  const text = (ids: readonly number[]) =>
    tokenizer.decode(
      ids.filter((id) => !stop.ids.includes(id)),
      { skipSpecial: true },
    )
  const stops = [...stop.texts, ...(request.stop ?? [])]
  /** Where the first stop text begins, or -1. */
  const stopAt = (answer: string) => {
    const places = stops.map((s) => answer.indexOf(s)).filter((at) => at >= 0)
    return places.length ? Math.min(...places) : -1
  }
  // A stop text is at most as many tokens as it has bytes, so only the tail needs a look.
  const tail = Math.max(0, ...stops.map((s) => Buffer.byteLength(s))) + 2
  const done = stops.length ? (ids: readonly number[]) => stopAt(text(ids.slice(-tail))) >= 0 : undefined
  const prompt = encodePrompt(tokenizer, request.messages)
  // Thoughts that the prompt opened are told from the answer by their opening.
  const opened = openedThoughts(renderChat(tokenizer, request.messages))
  return {
    item: { ...request, prompt, done },
    prefix: sharedIds(tokenizer, request.messages, prompt).join(),
    answer({ ids, finish }: Generated): Completion {
      const whole = text(ids)
      const cut = stopAt(whole)
      return { text: opened + (cut < 0 ? whole : whole.slice(0, cut)), tokens: ids.length, finish }
    },
  }
}

/** A scored pair as token ids, under each of its prompts. */
type Encoded = Record<"clean" | "noised" | "empty", Sequence>

function encodeScored(tokenizer: Tokenizer, request: ScoreRequest): Encoded {
  const under = (prompt: keyof Encoded): Sequence => {
    const { promptIds, responses } = encodeChats(tokenizer, request[prompt], request.responses)
    return { prompt: promptIds, responses }
  }
  return { clean: under("clean"), noised: under("noised"), empty: under("empty") }
}

/** Signals of all answers of some pairs, in three forward passes: clean, noised and empty prompt. */
async function scoreAll(bound: Bound, tokenizer: Tokenizer, requests: readonly Encoded[]): Promise<TokenSignals[][]> {
  const under = (prompt: keyof Encoded) => requests.map((request) => request[prompt])
  const packed = (sequences: readonly Sequence[]) => pack(sequences, batchInvariantPadding(), bound.plan)
  const clean = under("clean")
  const both = await contrast(bound, packed(clean), packed(under("noised")))
  const empty = await valuesOf(() => responseLogProbs(bound, packed(under("empty"))))
  let at = 0
  return clean.map(({ responses }) =>
    responses.map((ids) => {
      const range = (values: Float32Array) => [...values.subarray(at, at + ids.length)]
      const signals: TokenSignals = {
        tokens: tokenizer.tokenText(ids),
        logprob: range(both.logprob),
        logprob_noised: range(both.logprobOther),
        logprob_empty: range(empty),
        entropy: range(both.entropy),
        entropy_noised: range(both.entropyOther),
        kl: range(both.kl),
        kl_reverse: range(both.klReverse),
      }
      at += ids.length
      return signals
    }),
  )
}
