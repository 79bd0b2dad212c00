import { mkdir, rm } from "node:fs/promises"
import { dirname, join, resolve } from "node:path"
import { type RunConfig, thinkingOf } from "../config/config"
import { currentOf } from "../config/current"
import { pathError, requireReadable, writeAtomic } from "../data/files"
import { lockFolder } from "../data/lock"
import type { Results } from "../data/results"
import { beforeLongTurn } from "../data/stop-signals"
import { tf, useBackend } from "../device/tf"
import { describeModel } from "../engine/description"
import type { Generator } from "../engine/engine"
import { type LocalModel, openLocal } from "../engine/local"
import type { OpenAIOptions } from "../engine/openai"
import type { ServeOptions } from "../engine/serve"
import { planFor } from "../model/executor"
import { sizeOf } from "../model/transformer"
import { writeReport } from "../report/report"
import { writeResults } from "../report/tables"
import { openTrackers, type TrackerName } from "../trackers/trackers"
import { planLog, stageClock } from "./clock"
import { NoRowsError, type Progress, type RunContext } from "./context"
import { type EngineOptions, openEngines } from "./engines"
import { experiment, type Findings } from "./experiment"
import { checkOutsideRuns, sweep, versions, writeManifest } from "./manifest"
import { modelFolder } from "./model"
import { commit, machine } from "./origin"
import { openRunJudge } from "./run-judge"
import { checkServerSignals, serverSignals } from "./scoring-server"
import { openServed, openWriting } from "./servers"
import { isWorld } from "./stages"

/** Where a run goes, who writes, scores and judges, and who is told of its progress. */
export interface RunOptions extends Partial<Pick<RunContext, "signal" | "onProgress" | "onNote">> {
  /** Called with the tokens that each step of generation made. */
  onTokens?: (count: number) => void
  /** Run folder, made if absent. */
  dir: string
  /** A server that this run starts for its texts and stops for scoring and training. */
  serve?: Omit<ServeOptions, "log" | "signal" | "onNote">
  torch?: EngineOptions["torch"]
  /** Takes token signals from the server that writes: log-probs alone, so it must serve the model that is trained. */
  serverSignals?: boolean
  /** Judges the final evaluation and the benchmarks instead of the server that the settings name. */
  evalJudge?: Generator
  /** A model that is open already; the one that the settings name if not given. */
  local?: LocalModel
  /**
   * A server that writes and judges in place of the model: stages 0 to 4, baselines. Signals, training and evaluation
   * stay.
   */
  server?: OpenAIOptions
  /** How the judging server of the settings is asked: everything but its model and address. */
  judge?: Omit<OpenAIOptions, "model" | "baseURL">
  /** Folder of finished stages shared by runs: `.cache` beside the run folder if not given, null for none. */
  cache?: string | null
  /**
   * Folder for what the runs of a study have in common: answers to benchmarks without an adapter, the judge's calls.
   */
  shared?: string
  /** Where metrics of trainings and the results are logged to besides the run's own files. */
  log?: readonly TrackerName[]
  /** Command line for the manifest. */
  command?: string
}

/**
 * A whole experiment: instructions are decomposed, corrupted, recombined and answered, pairs are weighed, each method
 * is trained on them and evaluated on held-out instructions, for each seed. Every stage is a file of the run folder,
 * keyed by all that made it: called again, whatever is done is left alone, and a changed setting repeats only the
 * stages that it matters to. Writes `config.json`, `results.json`, `results.csv`, `results.md`, `manifest.json` and
 * `report.html`.
 * @throws StoppedError when aborted; InputError for bad seeds, a folder in use or inside of another run, a disk that is
 * full.
 */
export async function run(config: RunConfig, options: RunOptions): Promise<Results> {
  return (await findings(config, options)).results
}

/** A run, see above, with the graded answers that its results are made of. */
export async function findings(config: RunConfig, options: RunOptions): Promise<Findings> {
  const { onNote = () => {} } = options
  const dir = resolve(options.dir)
  if (options.serverSignals) checkServerSignals(config, !!(options.server || options.serve))
  if (!isWorld(config) && config.instructionsFrom !== "self-instruct") requireReadable(config.instructionsFrom)
  checkOutsideRuns(dir)
  const lock = lockFolder(dir)
  const failing = new AbortController() // ends what the engine still has to do when anything else fails
  const signal = AbortSignal.any([failing.signal, lock.lost, ...(options.signal ? [options.signal] : [])])
  try {
    const started = new Date().toISOString()
    sweep(dir)
    const clock = stageClock(dir)
    const { plans, add: onPlan } = planLog(dir, onNote)
    const onProgress = (progress: Progress) => {
      clock.progress(progress)
      options.onProgress?.(progress)
    }
    const onTokens = (count: number) => {
      clock.tokens(count)
      options.onTokens?.(count)
    }
    const seeds = Array.from({ length: config.repeat }, (_, i) => config.seed + i)
    const watching = { dir, signal, onProgress, onNote, onPlan, onTokens }
    const { backend, context, about, finish, close } = await openRun(config, options, watching)
    const results = await experiment(context, seeds).finally(async () => {
      failing.abort()
      await close()
    })
    await writeResults(dir, results.results)
    await context.tracking?.results(results.results)
    const finished = new Date().toISOString()
    const manifest = {
      ...{ backend, model: about, command: options.command ?? "", commit: commit() },
      ...{ machine: machine(), plans, stages: clock.times(), seeds, started, finished },
    }
    await finish()
    await writeManifest(dir, { ...versions(), ...manifest }, currentOf(config))
    await writeReport(dir)
    return results
  } catch (error) {
    if (error instanceof NoRowsError) await writeReport(dir) // which shows where the rows were lost
    throw pathError(error)
  } finally {
    failing.abort()
    lock.release()
  }
}

type Watching = Pick<RunContext, "dir" | "onProgress" | "onNote" | "onPlan"> & {
  signal: AbortSignal
  onTokens: (count: number) => void
}

/** Backend, model, servers, judge and trackers of a run. `finish` removes what only an unfinished run needs. */
async function openRun(config: RunConfig, options: RunOptions, { onTokens, ...watching }: Watching) {
  const { dir, signal, onProgress, onNote, onPlan } = watching
  const backend = await backendOf(config, options.local)
  onNote(backend)
  await beforeLongTurn(signal)
  const thinking = thinkingOf(config)
  const elsewhere = !!options.serve && !!options.torch
  const model =
    options.local ?? describeModel(await modelFolder(config.model, { signal, onProgress }), { thinking, elsewhere })
  let opened: LocalModel | undefined
  const open = () => {
    opened = openLocal(model.dir, { onNote, workers: config.workers, thinking })
    onPlan("writing and scoring", planFor(sizeOf(opened.model.params), { kind: "generate" }))
    return opened
  }
  const cache = options.cache === null ? undefined : (options.cache ?? join(dirname(dir), ".cache"))
  const opening = { file: join(dir, ".text.calls.jsonl"), signal, onNote, onProgress }
  const writer = options.server && (await openWriting(options.server, opening))
  const served = options.serve && (await openServed(model, { ...options.serve, log: join(dir, "server.log") }, opening))
  const text = served?.text ?? (writer && { base: writer.engine, identity: writer.id })
  const signals = options.serverSignals
    ? await serverSignals(model, { server: options.server, writer, served, ...opening })
    : undefined
  const engines = openEngines(model, options.local ? () => options.local! : open, {
    ...{ signal, onTokens, onNote, text, signals, torch: options.torch },
  })
  const tracking = options.log && (await openTrackers(dir, config, options.log))
  const { judge, shared } = options
  if (shared !== undefined) await mkdir(shared, { recursive: true })
  const evalJudge = await openRunJudge(config, { ...options, dir: shared ?? dir, signal, onNote })
  // Only when all is open, so that a wrong model leaves a finished run as it is.
  await rm(join(dir, "manifest.json"), { force: true })
  await writeAtomic(join(dir, "config.json"), `${JSON.stringify(config, null, 2)}\n`)
  const context: RunContext = { ...watching, config, engines, judge, evalJudge, cache, shared, tracking }
  const { name, fingerprint } = model
  return {
    ...{ backend, context },
    about: { name, fingerprint, ...(text && { text: { model: text.base.name, id: text.identity } }) },
    finish: async () => (served ?? writer)?.finish(),
    async close() {
      await writer?.close()
      await evalJudge?.close()
      await served?.close()
      engines.dispose()
      if (opened) tf.dispose(opened.model.params)
    },
  }
}

async function backendOf({ backend, math }: RunConfig, local?: LocalModel): Promise<string> {
  if (local) return `backend: ${tf.getBackend()}`
  return (await useBackend(backend === "auto" ? undefined : backend, math)).reason
}
