import { existsSync, rmSync } from "node:fs"
import { basename, join, resolve } from "node:path"
import type { RunConfig } from "../config/config"
import { writeAtomic } from "../data/files"
import { readJsonl } from "../data/jsonl"
import { type MetricsLine, metricsLine, type Results } from "../data/results"
import { InputError } from "../errors"
import { frameOf } from "../plots/frame"
import { resultLines, toCsv, toMarkdown } from "../report/tables"
import { type MlflowRun, mlflowRun } from "./mlflow"
import { type EventWriter, eventWriter } from "./tensorboard"
import { type WandbRun, wandbPython, wandbRun } from "./wandb"

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

/** A sink for the numbers of one training. */
interface Sink {
  add(line: MetricsLine): void
  finish(): void | Promise<void>
}

/** The numbers of a line of metrics but for the step itself. */
function numbersOf({ step: _, steps: __, ...values }: MetricsLine): Record<string, number> {
  return Object.fromEntries(
    Object.entries(values).filter((entry): entry is [string, number] => typeof entry[1] === "number"),
  )
}

/**
 * Trackers of a run folder, which write to `tensorboard/`, `wandb/`, `mlruns/` and `metrics.csv` in it. A training that
 * is logged again replaces its old log.
 * @throws InputError when the Python client of wandb is not installed
 */
export async function openTrackers(dir: string, config: RunConfig, names: readonly TrackerName[]): Promise<Tracking> {
  const experiment = basename(resolve(dir))
  const python = names.includes("wandb") ? await wandbPython() : ""
  const openWandb = (name: string): WandbRun => wandbRun(python, { dir, project: experiment, name, config })
  const csv: Record<string, unknown>[] = []
  const sinks: Record<TrackerName, (name: string) => Sink> = {
    tensorboard(name) {
      const folder = join(dir, "tensorboard", name)
      rmSync(folder, { recursive: true, force: true })
      const events: EventWriter = eventWriter(folder)
      const grouped = (values: Record<string, number>) =>
        Object.fromEntries(Object.entries(values).map(([key, value]) => [`train/${key}`, value]))
      return { add: (line) => events.scalars(line.step, grouped(numbersOf(line))), finish: () => {} }
    },
    mlflow(name) {
      const run: MlflowRun = mlflowRun(join(dir, "mlruns"), { experiment, name, params: config })
      return { add: (line) => run.metrics(line.step, numbersOf(line)), finish: () => run.finish() }
    },
    wandb(name) {
      const run = openWandb(name)
      return { add: (line) => run.metrics(line.step, numbersOf(line)), finish: () => run.finish() }
    },
    csv: (name) => ({
      add: (line) => void csv.push({ training: name, step: line.step, ...numbersOf(line) }),
      finish: () => {},
    }),
  }
  return {
    training(name, metricsFile) {
      let open: Sink[] | undefined
      const start = async (before: number) => {
        open = names.map((tracker) => sinks[tracker](name))
        if (!existsSync(metricsFile)) return
        for await (const line of readJsonl(metricsFile, metricsLine, { dropTorn: true, allowEmpty: true }))
          if (line.step < before) for (const sink of open) sink.add(line)
      }
      return {
        async step(line) {
          if (!open) await start(line.step)
          for (const sink of open!) sink.add(line)
        },
        async finish() {
          if (!open) await start(Number.POSITIVE_INFINITY)
          for (const sink of open!) await sink.finish()
          if (names.includes("csv")) await writeAtomic(join(dir, "metrics.csv"), toCsv(frameOf(csv)))
        },
      }
    },
    async results(results) {
      const lines = resultLines(results)
      if (!lines.length) return
      const scores = lines.map(({ method, temperature, ...rest }) => {
        const rates = Object.entries(rest).filter(
          ([key, value]) => /^(csr|isr)(_low|_high)?$/.test(key) && value !== null,
        )
        return {
          method,
          values: Object.fromEntries(rates.map(([key, value]) => [`${key}_T${temperature}`, Number(value)])),
        }
      })
      if (names.includes("tensorboard")) {
        const folder = join(dir, "tensorboard", "results")
        rmSync(folder, { recursive: true, force: true })
        eventWriter(folder).text("results", toMarkdown(frameOf(lines)))
        for (const method of new Set(scores.map((score) => score.method))) {
          const own = scores.filter((score) => score.method === method).flatMap(({ values }) => Object.entries(values))
          // the intervals are in the table: as scalars they would only fill the dashboard
          const rates = own.filter(([key]) => !/_(low|high)_/.test(key))
          const grouped = rates.map(([key, value]) => [`results/${key}`, value])
          eventWriter(join(folder, method)).scalars(0, Object.fromEntries(grouped))
        }
      }
      if (names.includes("wandb")) {
        const run = openWandb("results")
        const { columns, values } = frameOf(lines)
        const summary = scores.flatMap(({ method, values }) =>
          Object.entries(values).map(([key, value]) => [`${method}/${key}`, value] as const),
        )
        run.table({ columns, rows: values }, Object.fromEntries(summary))
        await run.finish()
      }
      if (names.includes("mlflow"))
        for (const method of new Set(scores.map((score) => score.method))) {
          const run = mlflowRun(join(dir, "mlruns"), { experiment, name: `results-${method}`, params: config })
          for (const score of scores) if (score.method === method) run.metrics(0, score.values)
          run.finish()
        }
    },
  }
}
