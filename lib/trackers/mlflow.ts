import { createHash } from "node:crypto"
import { appendFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"

/**
 * MLflow's file store: a folder an experiment, in it a folder a run, with a file for each metric, parameter and tag.
 */

const idOf = (...parts: readonly string[]) => createHash("sha256").update(parts.join("\n")).digest("hex").slice(0, 32)
const yaml = (fields: Readonly<Record<string, string | number | null>>) =>
  Object.entries(fields)
    .map(([key, value]) => `${key}: ${value === null ? "null" : JSON.stringify(value)}\n`)
    .join("")
/** Names that MLflow takes: letters, digits, `_ - . /` and spaces. */
const named = (name: string) => name.replace(/[^\w\-./ ]/g, "_")

export interface MlflowRun {
  /** Adds metrics of one step. */
  metrics(step: number, values: Readonly<Record<string, number>>): void
  /** Marks the run as finished. */
  finish(): void
}

/** Starts a run over in an experiment of a file store: the same names give the same run, whose old values go. */
export function mlflowRun(
  store: string,
  { experiment, name, params }: { experiment: string; name: string; params: Readonly<Record<string, unknown>> },
): MlflowRun {
  const experimentId = `${Number.parseInt(idOf(resolve(store), experiment).slice(0, 12), 16)}`
  const folder = join(store, experimentId)
  const runId = idOf(resolve(store), experiment, name)
  const dir = join(folder, runId)
  rmSync(dir, { recursive: true, force: true })
  for (const part of ["metrics", "params", "tags", "artifacts"]) mkdirSync(join(dir, part), { recursive: true })
  const uri = (path: string) => pathToFileURL(resolve(path)).href
  const began = Date.now()
  const times = { creation_time: began, last_update_time: began }
  const about = { artifact_location: uri(folder), experiment_id: experimentId, lifecycle_stage: "active" }
  writeFileSync(join(folder, "meta.yaml"), yaml({ ...about, ...times, name: experiment }))
  const meta = (status: number, end: number | null) =>
    writeFileSync(
      join(dir, "meta.yaml"),
      yaml({
        ...{
          artifact_uri: uri(join(dir, "artifacts")),
          end_time: end,
          entry_point_name: "",
          experiment_id: experimentId,
        },
        ...{ lifecycle_stage: "active", run_id: runId, run_name: name, run_uuid: runId, source_name: "musc" },
        ...{ source_type: 4, source_version: "", start_time: began, status, user_id: "musc" },
      }),
    )
  const running = 1
  meta(running, null)
  writeFileSync(join(dir, "tags", "mlflow.runName"), name)
  for (const [key, value] of Object.entries(params))
    writeFileSync(join(dir, "params", named(key)), typeof value === "string" ? value : JSON.stringify(value))
  const finished = 3
  return {
    metrics(step, values) {
      for (const [key, value] of Object.entries(values))
        appendFileSync(join(dir, "metrics", named(key)), `${Date.now()} ${value} ${step}\n`)
    },
    finish: () => meta(finished, Date.now()),
  }
}
