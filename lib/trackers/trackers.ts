import { existsSync, rmSync } from "node:fs"
import { basename, join, resolve } from "node:path"
import type { RunConfig } from "../config/config"
import { writeAtomic } from "../data/files"
import { readJsonl } from "../data/jsonl"
import { type MetricsLine, metricsLine, type Results } from "../data/results"
import { InputError } from "../errors"
import { frameOf } from "../plots/frame"
import { type ResultLine, resultLines, toCsv, toMarkdown } from "../report/tables"
import { mlflowRun } from "./mlflow"
import { eventWriter } from "./tensorboard"
import { wandbPython, wandbRun } from "./wandb"

/** Where training metrics and the table of results are logged to, in addition to the run's own files. */
export const trackerNames = ["tensorboard", "wandb", "mlflow", "csv"] as const
export type TrackerName = (typeof trackerNames)[number]

/** Trackers by name. @throws InputError for an unknown one */
export function parseTrackers(text: string): TrackerName[] {
  return text.split(",").map((name) => {
    const known = trackerNames.find((tracker) => tracker === name.trim())
    if (known) return known
    const rule = `must be one or more of ${trackerNames.join(", ")}`
    throw new InputError(`${rule}, got ${name.trim() || "nothing"}; correct it`, { field: "--log" })
  })
}

/** Logs the trainings of a run, and in the end its results. */
export interface Tracking {
  /** A training, which its metrics file may hold a part of already. */
  training(name: string, metricsFile: string): { step(line: MetricsLine): Promise<void>; finish(): Promise<void> }
  results(results: Results): Promise<void>
}

/** Takes the numbers of one training. */
interface Sink {
  add(line: MetricsLine): void
  finish(): void | Promise<void>
}

/** A line of the table of results, and its rates by name, such as `csr_T0`. */
interface Scored {
  method: string
  line: ResultLine
  rates: Record<string, number>
}

interface Tracker {
  training(name: string): Sink
  results?(scores: readonly Scored[]): void | Promise<void>
}

type OpenTracker = (dir: string, config: RunConfig) => Tracker | Promise<Tracker>

const openTracker: Record<TrackerName, OpenTracker> = { tensorboard, wandb, mlflow, csv }

/**
 * Trackers of a run folder, which write to `tensorboard/`, `wandb/`, `mlruns/` and `metrics.csv` in it. A training that
 * is logged again replaces its old log.
 * @throws InputError when the Python client of wandb is not installed
 */
export async function openTrackers(dir: string, config: RunConfig, names: readonly TrackerName[]): Promise<Tracking> {
  const trackers: Tracker[] = []
  for (const name of names) trackers.push(await openTracker[name](dir, config))
  return {
    training(name, metricsFile) {
      let sinks: Sink[] | undefined
      const start = async (before: number) => {
        sinks = trackers.map((tracker) => tracker.training(name))
        if (!existsSync(metricsFile)) return
        for await (const line of readJsonl(metricsFile, metricsLine, { dropTorn: true, allowEmpty: true }))
          if (line.step < before) for (const sink of sinks) sink.add(line)
      }
      return {
        async step(line) {
          if (!sinks) await start(line.step)
          for (const sink of sinks!) sink.add(line)
        },
        async finish() {
          if (!sinks) await start(Number.POSITIVE_INFINITY)
          for (const sink of sinks!) await sink.finish()
        },
      }
    },
    async results(results) {
      const scores = resultLines(results).map((line) => ({ method: line.method, line, rates: ratesOf(line) }))
      if (scores.length) for (const tracker of trackers) await tracker.results?.(scores)
    },
  }
}

/** The numbers of a line of metrics but for the step itself. */
function numbersOf({ step: _, steps: __, ...values }: MetricsLine): Record<string, number> {
  return Object.fromEntries(
    Object.entries(values).filter((entry): entry is [string, number] => typeof entry[1] === "number"),
  )
}

function ratesOf({ method: _, temperature, ...figures }: ResultLine): Record<string, number> {
  const rates = Object.entries(figures).filter(([key, value]) => /^(csr|isr)(_low|_high)?$/.test(key) && value !== null)
  return Object.fromEntries(rates.map(([key, value]) => [`${key}_T${temperature}`, Number(value)]))
}

const prefixed = (prefix: string, values: Readonly<Record<string, number>>) =>
  Object.fromEntries(Object.entries(values).map(([key, value]) => [`${prefix}/${key}`, value]))

const methodsOf = (scores: readonly Scored[]) => [...new Set(scores.map(({ method }) => method))]

const tableOf = (scores: readonly Scored[]) => frameOf(scores.map(({ line }) => line))

function tensorboard(dir: string): Tracker {
  const emptied = (name: string) => {
    const folder = join(dir, "tensorboard", name)
    rmSync(folder, { recursive: true, force: true })
    return folder
  }
  return {
    training(name) {
      const events = eventWriter(emptied(name))
      return { add: (line) => events.scalars(line.step, prefixed("train", numbersOf(line))), finish: () => {} }
    },
    results(scores) {
      const folder = emptied("results")
      eventWriter(folder).text("results", toMarkdown(tableOf(scores)))
      for (const method of methodsOf(scores)) {
        const own = scores.filter((score) => score.method === method).flatMap(({ rates }) => Object.entries(rates))
        // The intervals are in the table: as scalars they would only fill the dashboard.
        const rates = Object.fromEntries(own.filter(([key]) => !/_(low|high)_/.test(key)))
        eventWriter(join(folder, method)).scalars(0, prefixed("results", rates))
      }
    },
  }
}

function mlflow(dir: string, params: RunConfig): Tracker {
  const open = (name: string) => mlflowRun(join(dir, "mlruns"), { experiment: basename(resolve(dir)), name, params })
  return {
    training(name) {
      const run = open(name)
      return { add: (line) => run.metrics(line.step, numbersOf(line)), finish: () => run.finish() }
    },
    results(scores) {
      for (const method of methodsOf(scores)) {
        const run = open(`results-${method}`)
        for (const score of scores) if (score.method === method) run.metrics(0, score.rates)
        run.finish()
      }
    },
  }
}

async function wandb(dir: string, config: RunConfig): Promise<Tracker> {
  const python = await wandbPython()
  const open = (name: string) => wandbRun(python, { dir, project: basename(resolve(dir)), name, config })
  return {
    training(name) {
      const run = open(name)
      return { add: (line) => run.metrics(line.step, numbersOf(line)), finish: () => run.finish() }
    },
    async results(scores) {
      const run = open("results")
      const { columns, values } = tableOf(scores)
      run.table({ columns, rows: values }, Object.assign({}, ...scores.map((one) => prefixed(one.method, one.rates))))
      await run.finish()
    },
  }
}

/** `metrics.csv` with the steps of all trainings, written anew at the end of each. */
function csv(dir: string): Tracker {
  const rows: Record<string, unknown>[] = []
  return {
    training: (name) => ({
      add: (line) => void rows.push({ training: name, step: line.step, ...numbersOf(line) }),
      finish: () => writeAtomic(join(dir, "metrics.csv"), toCsv(frameOf(rows))),
    }),
  }
}
