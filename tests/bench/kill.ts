/**
 * Kills a run with SIGKILL at random moments, starts it again each time, and compares its final files with those of an
 * undisturbed run.
 *
 *     npx tsx tests/bench/kill.ts [--kills 20] [--dir runs/kill] [arguments of `musc run`, default: smoke]
 */

import { type ChildProcess, spawn } from "node:child_process"
import { readdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { openSafetensors } from "../../lib/model/safetensors"
import { rng } from "../../lib/rng"
import { argumentsOf } from "./arguments"

const { values, positionals } = argumentsOf(__filename, {
  options: { kills: { type: "string", default: "20" }, dir: { type: "string", default: "runs/kill" } },
  allowPositionals: true,
})
const kills = Number(values.kills)
const [whole, killed] = [join(values.dir, "undisturbed"), join(values.dir, "killed")]
const musc = join(__dirname, "../../lib/cli/bin.cjs")
const args = (out: string) => [
  musc,
  "run",
  ...(positionals.length ? positionals : ["smoke"]),
  "--no-cache",
  "--out",
  out,
]

const start = (out: string): ChildProcess => spawn(process.execPath, args(out), { stdio: ["ignore", "ignore", "pipe"] })
const ended = (child: ChildProcess) =>
  new Promise<{ code: number | null; errors: string }>((resolve) => {
    let errors = ""
    child.stderr!.on("data", (text) => {
      errors = (errors + text).slice(-2000)
    })
    child.on("close", (code) => resolve({ code, errors }))
  })
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Seconds that a start takes before it does anything that a kill could disturb. */
const loading = 3

async function main() {
  rmSync(values.dir, { recursive: true, force: true })
  const began = Date.now()
  const undisturbed = await ended(start(whole))
  if (undisturbed.code !== 0) throw new Error(`the undisturbed run failed:\n${undisturbed.errors}`)
  const seconds = (Date.now() - began) / 1000
  console.log(`undisturbed: ${seconds.toFixed(0)} s`)

  const random = rng(1, "kill")
  for (let done = 0; done < kills; ) {
    const child = start(killed)
    const end = ended(child)
    // On average a kill for every 1/kills of the work.
    const delay = loading + random.next() * 2 * Math.max(1, seconds / kills)
    const finished = await Promise.race([end, sleep(1000 * delay).then(() => null)])
    if (finished) {
      if (finished.code !== 0) throw new Error(`after ${done} kills the run failed:\n${finished.errors}`)
      console.log(`finished before kill ${done + 1}; starting anew`)
      compare()
      rmSync(killed, { recursive: true })
      continue
    }
    child.kill("SIGKILL")
    await end
    console.log(`kill ${++done} after ${delay.toFixed(1)} s`)
  }
  const last = await ended(start(killed))
  if (last.code !== 0) throw new Error(`after ${kills} kills the run failed:\n${last.errors}`)
  compare()
}

/** Files that name times, or are made from files that do. */
const timed = /(^|\/)(manifest\.json|report\.html|lock\.json)$/

function compare(): void {
  const files = (dir: string) =>
    readdirSync(dir, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1))
      .sort()
  const [a, b] = [files(whole), files(killed)]
  if (a.join() !== b.join()) throw new Error(`the folders hold different files:\n${a.join("\n")}\nand\n${b.join("\n")}`)
  let equal = 0
  let largest = 0
  for (const file of a.filter((name) => !timed.test(name))) {
    const [x, y] = [readFileSync(join(whole, file)), readFileSync(join(killed, file))]
    if (x.equals(y)) equal++
    else if (file.endsWith(".safetensors"))
      largest = Math.max(largest, tensorGap(join(whole, file), join(killed, file)))
    else throw new Error(`${file} differs`)
  }
  console.log(`${equal} files equal byte for byte; largest difference of a weight in the others ${largest}`)
}

function tensorGap(a: string, b: string): number {
  const [x, y] = [openSafetensors(a), openSafetensors(b)]
  let gap = 0
  for (const name of x.tensors.keys()) {
    const [p, q] = [x.read(name), y.read(name)]
    p.forEach((value, i) => {
      gap = Math.max(gap, Math.abs(value - q[i]!))
    })
  }
  x.close()
  y.close()
  return gap
}

main()
