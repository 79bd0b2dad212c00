import { spawn } from "node:child_process"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import type { Message } from "../../lib/data/schema"
import { memory } from "./memory-of"

/** What one run of the stage gave. */
export interface StageRun {
  rows: number
  seconds: number
  peakMiB: number
  /** tokens of all replies: two commits that round otherwise may write texts of other lengths */
  tokens: number
}

/** `musc decompose` of a checkout, a whole command, over `rows` instructions of the workload with few-shot examples. */
export async function decomposeStage(
  { checkout, model, signals, dir }: { checkout: string; model: string; signals: string; dir: string },
  rows: number,
): Promise<StageRun> {
  const [input, output] = [join(dir, "instructions.jsonl"), join(dir, "decomposed.jsonl")]
  const lines = readFileSync(signals, "utf8").trimEnd().split("\n").slice(0, rows)
  const instructions = lines.map((line) => (JSON.parse(line).texts as { clean: Message[] }).clean[0]!.content)
  writeFileSync(
    input,
    instructions.map((instruction, id) => `${JSON.stringify({ id: `${id}`, instruction })}\n`).join(""),
  )
  // Texts of a random model end by chance, at temperature 1 after some 50 tokens.
  const short = ["decomposeTemperature=1", "decomposeMaxTokens=128"].flatMap((setting) => ["--set", setting])
  rmSync(output, { force: true })
  const start = performance.now()
  const command = ["lib/cli/bin.cjs", "decompose", input, "-o", output, "--model", model, "--force", ...short]
  const peakMiB = await watchedCommand(command, resolve(checkout))
  const seconds = (performance.now() - start) / 1000
  const replies = readFileSync(output, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).calls.decompose)
  const tokens = replies.flat().reduce((sum: number, call: { tokens: number }) => sum + call.tokens, 0)
  return { rows: replies.length, seconds, peakMiB, tokens }
}

/** Runs a command of Node and gives its highest memory in MiB, NaN where /proc does not tell. */
function watchedCommand(args: readonly string[], cwd: string): Promise<number> {
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, args, { cwd, stdio: ["ignore", "ignore", "pipe"] })
    let said = ""
    let peak = Number.NaN
    const timer = setInterval(() => {
      peak = memory("VmHWM", child.pid) ?? peak
    }, 50)
    child.stderr.on("data", (chunk) => {
      said = `${said}${chunk}`.slice(-3000)
    })
    child.on("error", failed)
    child.on("close", (code) => {
      clearInterval(timer)
      // Replies of a random model hold no constraints, which counts as an error; they are written all the same.
      if (code === 0 || said.includes("no row passed")) done(Math.round(peak))
      else failed(new Error(`${args.join(" ")} in ${cwd} ended with ${code}:\n${said}`))
    })
  })
}
