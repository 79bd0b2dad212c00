import { basename, dirname, join } from "node:path"
import type { RunConfig } from "../config/config"
import type { Scorer, SignalScorer } from "../engine/engine"
import { servedText } from "../engine/serve"
import { removeJob } from "../engine/torch"
import { type RowStageName, stageNamed } from "../musc/stages"
import { checkServerWeightings, weighRequest } from "../musc/weigh"
import { scoredByJob } from "../runs/context"
import { openScoring } from "../runs/scoring-server"
import { openServed, openWriting } from "../runs/servers"
import { pairsOf, type StageInput } from "../runs/stage-file"
import { keyOf } from "../runs/store"
import { torchFingerprint, torchScorer } from "../runs/torch-score"
import type { Display } from "./display"
import { type ServedFlags, servedOptions, writerOptions } from "./servers"
import { openDescription, openModel, type TorchFlags, torchOptions } from "./support"

/** Who does a stage: the model in this process, a server, one that this command starts, or a Python job. */
export interface StageEngine {
  engine: Scorer
  identity: string
  close(): Promise<void>
  /** After a stage that is whole. */
  finish(): Promise<void>
}

export interface StageFlags extends ServedFlags, TorchFlags {
  model?: string
  out: string
}

interface Opening {
  input: StageInput
  signal: AbortSignal
  show: Display
}

/** @throws InputError for options that contradict each other, or weightings that a server cannot make */
export async function openStageEngine(
  name: RowStageName,
  config: RunConfig,
  flags: StageFlags,
  { input, signal, show }: Opening,
): Promise<StageEngine> {
  const { model, out } = flags
  const beside = (what: string) => join(dirname(out), `.${basename(out)}.${what}`)
  const opening = { signal, onNote: show.note, onProgress: show.progress }
  const scores = stageNamed(name).needs === "signals"
  const torch = torchOptions(flags)
  if (torch) {
    const description = await openDescription(config, show, signal)
    const job = {
      ...{ folder: `${out.replace(/\.jsonl$/, "")}.job`, stage: name, total: input.count, ...opening },
      async *requests() {
        for await (const row of pairsOf(input)) yield weighRequest(row)
      },
    }
    const engine = scoredByJob(torchScorer(description, torch), job)
    const identity = torchFingerprint(description.fingerprint, torch)
    const finish = () => removeJob(job.folder)
    return { engine: engine as unknown as Scorer, identity, close: engine.dispose, finish }
  }
  if ((flags.endpoint || flags.serve !== undefined) && scores) checkServerWeightings(config.weightings)
  if (flags.serve !== undefined) {
    const options = servedOptions(flags, beside("server.log"), show.progress)
    const description = await openDescription(config, show, signal)
    if (scores) {
      const text = servedText(description, { ...options, signal, onNote: show.note })
      const engine = text.scorer as unknown as Scorer
      return { ...closed, engine, identity: keyOf("server scorer", text.identity), close: text.pause }
    }
    return writing(await openServed(description, options, { ...opening, file: beside("calls.jsonl") }))
  }
  if (flags.endpoint) {
    const server = writerOptions(flags)
    if (!scores) return writing(await openWriting(server, { ...opening, file: beside("calls.jsonl") }))
    const { engine, identity } = await openScoring(server, model, opening)
    return { ...closed, engine: engine as SignalScorer as Scorer, identity }
  }
  const local = await openModel(config, show, signal)
  return { ...closed, engine: local.engine(null, { signal, onTokens: show.tokens }), identity: local.fingerprint }
}

const closed = { close: async () => {}, finish: async () => {} }

type Writing = Awaited<ReturnType<typeof openWriting>>

const writing = ({ engine, id, close, finish }: Writing): StageEngine => ({
  ...{ engine: engine as unknown as Scorer, identity: id, close, finish },
})
