import { existsSync } from "node:fs"
import { join } from "node:path"
import { isJsonObject, readJsonFile } from "../data/json-file"
import { InputError } from "../errors"
import type { Progress } from "./context"
import type { StageTime } from "./manifest"

/**
 * Measures what each stage takes, from its first to its last sign of progress. Stages that an earlier call of the run did
 * keep the times that its manifest holds.
 */
export function stageClock(dir: string, now: () => number = () => performance.now()) {
  const times: Record<string, StageTime> = earlier(join(dir, "manifest.json"))
  let current: { stage: string; began: number; from: number; tokens: number } | undefined
  return {
    progress({ stage, unit, done }: Progress): void {
      if (current?.stage !== stage) current = { stage, began: now(), from: done, tokens: 0 }
      const rows = done - current.from
      if (rows <= 0) return
      const seconds = Number(((now() - current.began) / 1000).toFixed(2))
      times[stage] = { seconds, unit, done: rows, ...(current.tokens && { tokens: current.tokens }) }
    },
    tokens(count: number): void {
      if (current) current.tokens += count
    },
    times: () => times,
  }
}

/** The times that a run's manifest holds; none for one that cannot be read. */
function earlier(file: string): Record<string, StageTime> {
  if (!existsSync(file)) return {}
  try {
    const { stages } = readJsonFile(file)
    return isJsonObject(stages) ? ({ ...stages } as unknown as Record<string, StageTime>) : {}
  } catch (error) {
    if (error instanceof InputError) return {}
    throw error
  }
}
