import { type ChildProcess, fork } from "node:child_process"
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { rng } from "../../../lib/rng"
import { Count, type Tally } from "./table"

type Random = ReturnType<typeof rng>

/** What is done to the bytes of a sound file. */
const mutations: Record<string, (bytes: Buffer, random: Random) => Buffer> = {
  cut: (bytes, random) => bytes.subarray(0, random.int(bytes.length + 1)),
  bits: (bytes, random) => {
    const copy = Buffer.from(bytes)
    for (let i = 0; i < 1 + random.int(8); i++) if (copy.length) copy[random.int(copy.length)]! ^= 1 << random.int(8)
    return copy
  },
  zeros: (bytes, random) => {
    const copy = Buffer.from(bytes)
    const from = random.int(copy.length + 1)
    copy.fill(0, from, Math.min(copy.length, from + random.int(4096)))
    return copy
  },
  twice: (bytes, random) => Buffer.concat([bytes.subarray(0, random.int(bytes.length + 1)), bytes]),
  empty: () => Buffer.alloc(0),
  deep: (bytes, random) => insert(bytes, random, "[".repeat(20_000) + "]".repeat(20_000)),
  deepObject: (bytes, random) => insert(bytes, random, `${'{"a":'.repeat(20_000)}1${"}".repeat(20_000)}`),
  proto: (bytes, random) => insert(bytes, random, '{"__proto__":{"polluted":1},"constructor":null}'),
  value: (bytes, random) => {
    const values = ["null", "-1e999", "1e308", "[]", "{}", '""', "true", "9007199254740993", "-0", '"\\ud800"', "NaN"]
    const text = bytes.toString("latin1")
    const places = [...text.matchAll(/:\s*("(?:[^"\\]|\\.)*"|-?[\d.eE+]+|true|false|null)/g)]
    const place = places[random.int(Math.max(1, places.length))]
    if (!place) return bytes
    const at = place.index + place[0].length - place[1]!.length
    const value = values[random.int(values.length)]!
    return Buffer.from(text.slice(0, at) + value + text.slice(at + place[1]!.length), "latin1")
  },
  field: (bytes, random) => {
    const text = bytes.toString("latin1")
    const names = [...text.matchAll(/"([\w.]+)"\s*:/g)]
    const place = names[random.int(Math.max(1, names.length))]
    return place ? Buffer.from(`${text.slice(0, place.index + 1)}x${text.slice(place.index + 1)}`, "latin1") : bytes
  },
  long: (bytes, random) => insert(bytes, random, "a".repeat(2 ** 20)),
  notUtf8: (bytes, random) => insert(bytes, random, Buffer.from([0xff, 0xfe, 0xc3, 0x28])),
  mark: (bytes) => Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), bytes]),
}

function insert(bytes: Buffer, random: Random, what: string | Buffer): Buffer {
  const at = random.int(bytes.length + 1)
  return Buffer.concat([bytes.subarray(0, at), Buffer.from(what), bytes.subarray(at)])
}

/** A sound file, what reads it, and what must lie beside it. */
export interface Sound {
  kind: string
  file: string
}

/** Damages sound files in every way and has them read: an error that names the place, in time and in bounded memory. */
export async function fuzz(
  root: string,
  sound: readonly Sound[],
  model: string,
  tries: number,
  seconds: number,
): Promise<Tally> {
  const count = new Count("damaged files")
  const random = rng(1, "attack", "fuzz")
  const end = Date.now() + 1000 * seconds
  let child: ChildProcess | undefined
  let [slowest, peak] = [0, 0]
  const names = Object.keys(mutations)
  for (let i = 0; i < tries && Date.now() < end; i++) {
    const { kind, file } = sound[i % sound.length]!
    const mutation = names[Math.floor(i / sound.length) % names.length]!
    const dir = join(root, "beside")
    rmSync(dir, { recursive: true, force: true })
    mkdirSync(dir, { recursive: true })
    cpSync(dirname(file), dir, { recursive: true })
    const damaged = join(dir, basename(file))
    writeFileSync(damaged, mutations[mutation]!(readFileSync(file), random))
    child ??= await started(model)
    const said = await answerOf(child, { kind, file: damaged })
    if (said === undefined) {
      child.kill("SIGKILL")
      child = undefined
      count.add(`${kind}, ${mutation}: no answer in 30 s, or the process ended`)
      continue
    }
    slowest = Math.max(slowest, said.ms)
    peak = Math.max(peak, said.peakMiB)
    const slow = said.ms > 10_000 ? `${kind}, ${mutation}: ${(said.ms / 1000).toFixed(1)} s` : undefined
    const large = said.peakMiB > 1024 ? `${kind}, ${mutation}: ${said.peakMiB.toFixed(0)} MiB` : undefined
    count.add(said.problem ? `${mutation}: ${said.problem}` : (slow ?? large))
    if (i % 500 === 499 || large) {
      child.kill("SIGKILL") // memory is that of 500 files at most
      child = undefined
    }
  }
  child?.kill("SIGKILL")
  const kinds = new Set(sound.map(({ kind }) => kind)).size
  count.note = `${kinds} kinds of files, ${names.length} kinds of damage; slowest ${(slowest / 1000).toFixed(1)} s, most memory ${peak.toFixed(0)} MiB`
  return count
}

/** A process that reads files, loaded. */
async function started(model: string): Promise<ChildProcess> {
  const child = fork(join(__dirname, "fuzz-child.ts"), [model], { execArgv: ["-r", "tsx/cjs"], silent: true })
  await new Promise((resolve) => child.once("message", resolve))
  return child
}

interface Answer {
  problem?: string
  ms: number
  peakMiB: number
}

function answerOf(child: ChildProcess, ask: object): Promise<Answer | undefined> {
  return new Promise((resolve) => {
    const done = (answer?: Answer) => {
      clearTimeout(timer)
      child.removeAllListeners()
      resolve(answer)
    }
    const timer = setTimeout(() => done(), 30_000)
    child.once("message", (answer) => done(answer as Answer))
    child.once("exit", () => done())
    child.send(ask)
  })
}
