import { readdirSync } from "node:fs"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { startKernel } from "../../support/kernel"
import { run } from "./child"
import { Count, type Tally } from "./table"

/** What a process holds at one moment. */
export interface Held {
  /** steps, rows or cells so far */
  done: number
  tensors: number
  /** open files, sockets and pipes; 0 where the system does not tell */
  files: number
  /** resident memory, MiB */
  memory: number
}

/** What this process holds. */
export function held(done: number, tensors: number): Held {
  const files = process.platform === "linux" ? readdirSync("/proc/self/fd").length : 0
  return { done, tensors, files, memory: process.memoryUsage().rss / 2 ** 20 }
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/**
 * What grows between the third and the last tenth of the work; undefined for nothing. Tensors and files may not; memory
 * by 15 % and 32 MiB, which is what a heap swings by.
 */
export function growthOf(samples: readonly Held[]): string | undefined {
  const part = (from: number, to: number) =>
    samples.slice(Math.floor(from * samples.length), Math.ceil(to * samples.length))
  const at = (key: keyof Held, samples: readonly Held[]) => median(samples.map((one) => one[key]))
  const [early, late] = [part(0.25, 0.4), part(0.9, 1)]
  if (!early.length || !late.length) return `only ${samples.length} samples`
  const grown = (key: keyof Held, most: number) =>
    at(key, late) > most ? `${key} ${at(key, early).toFixed(0)} -> ${at(key, late).toFixed(0)}` : undefined
  return (
    grown("tensors", at("tensors", early)) ??
    grown("files", at("files", early) + 1) ??
    grown("memory", 1.15 * at("memory", early) + 32)
  )
}

function told(samples: readonly Held[]): string {
  const [first, last] = [samples[0], samples.at(-1)]
  if (!first || !last) return "no look at it"
  const range = (key: keyof Held) => `${first[key].toFixed(0)} -> ${last[key].toFixed(0)}`
  const held = `tensors ${range("tensors")}, files ${range("files")}, MiB ${range("memory")}`
  return `${last.done} done; from the first to the last look: ${held}`
}

/** Long work in one process, with looks at what it holds: `training` steps, `generation` rows. */
async function longWork(kind: "training" | "generation", amount: number, seconds: number): Promise<Tally> {
  const count = new Count(`endurance: ${kind}`)
  const program = join(__dirname, "endurance-child.ts")
  const { output, code, timedOut } = await run([process.execPath, "-r", "tsx/cjs", program, kind, `${amount}`], {
    limit: seconds,
  })
  const samples: Held[] = output.split("\n").flatMap((line) => (line.startsWith('{"done"') ? [JSON.parse(line)] : []))
  const problem = code !== 0 && !timedOut ? output.slice(-300) : growthOf(samples)
  count.add(problem)
  count.note = `${told(samples)}${timedOut ? "; out of time" : ""}`
  return count
}

const loop = `
for (let i = 0; i < 2; i++) {
  const row = { messages: [{ role: "user" as const, content: "Write a song." }], temperature: 1, maxTokens: 30, seed: i }
  const texts = await Promise.all([0, 1, 2, 3].map((k) => engine.generate({ ...row, seed: 4 * i + k })))
  console.log(texts.length)
}
const lora = initLora(local.config, { rank: 4, alpha: 8, seed: 1 })
tf.dispose(lora.params)
const fs = require("fs")
console.log(JSON.stringify({ tensors: tf.memory().numTensors, files: fs.readdirSync("/proc/self/fd").length,
  memory: process.memoryUsage().rss / 2 ** 20 }))`

/** A notebook's kernel whose cells are run over and over: answers, adapters made and disposed, displays. */
async function kernelWork(seconds: number): Promise<Tally> {
  const count = new Count("endurance: notebook kernel")
  const kernel = await startKernel()
  const samples: Held[] = []
  let problem: string | undefined
  try {
    const first = await kernel.run(
      'import { initLora, openLocal, tf, useBackend } from "musc"\nawait useBackend()\n' +
        'const local = openLocal("data/models/world-small")\nconst engine = local.engine()',
    )
    if (first.reply.status !== "ok") problem = first.reply.evalue
    const end = Date.now() + 1000 * seconds
    while (!problem && Date.now() < end) {
      const { stdout, stderr, reply } = await kernel.run(`{${loop}}`)
      if (reply.status !== "ok") problem = `${reply.ename}: ${reply.evalue}; ${stderr.slice(-500)}`
      else samples.push({ done: samples.length + 1, ...JSON.parse(stdout.trim().split("\n").at(-1)!) })
      await setTimeout(2000) // a reader looks at what came out
    }
  } finally {
    await kernel.stop()
  }
  count.add(problem ?? growthOf(samples))
  count.note = `${(seconds / 60).toFixed(0)} minutes of cells; ${told(samples)}`
  return count
}

/**
 * Long work holds no more at its end than at its beginning: tensors, open files, memory. Of training, generation and a
 * notebook's kernel those that `wanted` names; the kernel has half of the time, or all where it is alone.
 */
export async function endurance(
  steps: number,
  rows: number,
  seconds: number,
  wanted: readonly string[] = ["training", "generation", "kernel"],
): Promise<Tally[]> {
  const tallies: Tally[] = []
  for (const name of wanted) {
    if (name === "training") tallies.push(await longWork("training", steps, seconds / 4))
    if (name === "generation") tallies.push(await longWork("generation", rows, seconds / 4))
    if (name === "kernel") tallies.push(await kernelWork(wanted.length > 1 ? seconds / 2 : seconds))
  }
  return tallies
}
