import { existsSync } from "node:fs"
import { join } from "node:path"
import { isJsonObject, readJsonFile } from "../data/json-file"
import { InputError } from "../errors"
import { describePlan, type Plan } from "../model/executor"
import type { Progress } from "./context"
import type { Manifest, StageTime } from "./manifest"

/**
 * Keeps how the model was run, by part of a run, and tells each way once. Parts that an earlier call of the run did
 * keep what its manifest holds.
 */
export function planLog(dir: string, onNote: (line: string) => void) {
  const plans = earlier<string>(join(dir, "manifest.json"), "plans")
  const noted = new Set<string>()
  return {
    plans,
    add(part: string, plan: Plan): void {
      plans[part] = describePlan(plan)
      const line = `plan for ${plan.gradient ? "training" : part}: ${plans[part]}`
      if (!noted.has(line)) onNote(line)
      noted.add(line)
    },
  }
}

/**
 * Measures what each stage takes, from its first to its last sign of progress. Stages that an earlier call of the run
 * did keep the times that its manifest holds.
 */
export function stageClock(dir: string) {
  const times: Record<string, StageTime> = earlier<StageTime>(join(dir, "manifest.json"), "stages")
  let current: { stage: string; began: number; from: number; tokens: number } | undefined
  return {
    progress({ stage, unit, done }: Progress): void {
      if (current?.stage !== stage) current = { stage, began: performance.now(), from: done, tokens: 0 }
      const rows = done - current.from
      if (rows <= 0) return
      const seconds = Number(((performance.now() - current.began) / 1000).toFixed(2))
      times[stage] = { seconds, unit, done: rows, ...(current.tokens && { tokens: current.tokens }) }
    },
    tokens(count: number): void {
      if (current) current.tokens += count
    },
    times: () => times,
  }
}

/** A record of a run's manifest; empty for one that cannot be read. */
function earlier<Value>(file: string, field: keyof Manifest): Record<string, Value> {
  if (!existsSync(file)) return {}
  try {
    const record = readJsonFile(file)[field]
    return isJsonObject(record) ? ({ ...record } as unknown as Record<string, Value>) : {}
  } catch (error) {
    if (error instanceof InputError) return {}
    throw error
  }
}
