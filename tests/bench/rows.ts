import { closeSync, mkdirSync, openSync, rmSync, statSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseConfig } from "../../lib/config/config"
import { cachedGenerator } from "../../lib/engine/cached"
import type { Generator, Scorer } from "../../lib/engine/engine"
import { textStages } from "../../lib/musc/stages"
import { stageKey } from "../../lib/runs/context"
import { runStageFile, stageInput } from "../../lib/runs/stage-file"
import { stageOptions } from "../../lib/runs/stages"

/**
 * All text stages over many rows, as the stage commands do them against a server: rows from file to file, finished
 * calls kept in a file. A script answers in place of the server. Says rows a second and the highest memory of each
 * stage.
 *
 *     npx tsx tests/bench/rows.ts [rows] [folder]
 */

const question = (i: number) => `Does the answer name the number ${i}?`

/** Answers as a model would that never errs, by what is asked. */
export function scriptedWriter(): Generator {
  const answer = (asked: string, seed: number): string => {
    const number = Number(/number (\d+)/.exec(asked)?.[1] ?? 0)
    if (asked.startsWith("Split the instruction"))
      return [1, 2, 3, 4].map((i) => `##${i}. ${i === 1 ? "Is it a note?" : question(number + i)}`).join("\n")
    if (asked.startsWith("Change the question")) return question(number + 1000)
    if (asked.startsWith("Write one instruction")) {
      const numbers = [...asked.matchAll(/number (\d+)/g)].map(([, n]) => n)
      return `Write a note that names ${numbers.map((n) => `the number ${n}`).join(", ")}.`
    }
    return `A note of seed ${seed}. ${"It goes on for a while, as an answer does. ".repeat(6)}`
  }
  return {
    ...{ name: "script", concurrency: 64, independent: true },
    async generate({ messages, seed }) {
      const text = answer(messages.at(-1)!.content, seed)
      return { text, tokens: Math.ceil(text.length / 4), finish: "stop" }
    },
  }
}

export interface StageLoad {
  stage: string
  rows: number
  failed: number
  seconds: number
  megabytes: number
  /** Highest resident memory of this process so far, MiB. */
  peakMiB: number
}

/** Runs the stages in `dir` and tells of each as it ends. Files of a stage before the last one are removed. */
export async function measureRows(rows: number, dir: string, onStage: (load: StageLoad) => void): Promise<void> {
  mkdirSync(dir, { recursive: true })
  let file = join(dir, "seeds.jsonl")
  const handle = openSync(file, "w")
  for (let i = 0; i < rows; i++)
    writeSync(handle, `${JSON.stringify({ instruction: `Write a note on the number ${i}.` })}\n`)
  closeSync(handle)
  const config = parseConfig({ model: "script" })
  const options = stageOptions(config, 0)
  for (const name of textStages) {
    const began = performance.now()
    const out = join(dir, `${name}.jsonl`)
    const calls = join(dir, `${name}.calls.jsonl`)
    const input = await stageInput(name, file)
    const engine = await cachedGenerator(scriptedWriter(), { file: calls, id: "script" })
    const key = stageKey(name, options[name], "script", rows)
    const done = await runStageFile({
      name,
      input,
      out,
      key,
      engine: engine as Generator as Scorer,
      settings: options[name],
    })
    await engine.close()
    onStage({
      ...{ stage: name, rows: done.rows, failed: Object.values(done.failures).reduce((a, b) => a + b, 0) },
      ...{ seconds: (performance.now() - began) / 1000, megabytes: statSync(out).size / 1e6 },
      peakMiB: process.resourceUsage().maxRSS / 1024,
    })
    for (const old of [file, calls]) rmSync(old)
    file = out
  }
}

if (require.main === module) {
  const [rows = "1000000", dir = join(tmpdir(), "musc-rows")] = process.argv.slice(2)
  void measureRows(Number(rows), dir, ({ stage, rows, failed, seconds, megabytes, peakMiB }) => {
    const rate = `${rows} rows in ${seconds.toFixed(0)} s, ${(rows / seconds).toFixed(0)} rows/s`
    console.log(
      `${stage}: ${rate}; ${failed} failed; ${megabytes.toFixed(0)} MB; peak so far ${peakMiB.toFixed(0)} MiB`,
    )
  }).finally(() => rmSync(dir, { recursive: true, force: true }))
}
