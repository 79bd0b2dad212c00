/**
 * Attacks musc where it keeps, reads and fetches: signals, full disks, locks, damaged files, misbehaving servers and
 * hubs, hostile texts. Prints one table: tried, survived, lost. Bounded in time; servers listen on the loopback alone.
 *
 *     npm run attack                       the short form, three minutes
 *     npm run attack -- --full             the long form
 *     npm run attack -- --only locks,fuzz  some of it: locks, fuzz, models, servers, texts, disks,
 *                                          endurance, signals
 *     npm run attack -- --cases FOLDER     plays the chat servers that lie in a folder; see cases.ts
 *     npm run attack -- --full --only signals --works train,job   some of the work that signals stop; see works.ts
 *     npm run attack -- --full --only endurance --works kernel    training, generation or kernel
 *     npm run attack -- --full --record    keeps the table as data/results/attack.json and .md
 *
 * Full disks need the right to mount. The exit code is 1 when anything was lost.
 */

import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { writeAtomic } from "../../../lib/data/files"
import { commit, machine } from "../../../lib/runs/origin"
import { hubServer } from "../../support/hub-server"
import { argumentsOf } from "../arguments"
import { servedCases } from "./cases"
import { lastLine, musc } from "./child"
import { fullDisks } from "./disks"
import { endurance } from "./endurance"
import { fuzz, type Sound } from "./fuzz"
import { kills } from "./kills"
import { lockCases, lockRaces } from "./locks"
import { hostileModels } from "./models"
import { chatServers, hubs } from "./servers"
import { type Tally, type Tried, tableOf } from "./table"
import { hostileTexts } from "./texts"
import { worksOf } from "./works"

const { values } = argumentsOf(__filename, {
  options: {
    full: { type: "boolean", default: false },
    only: { type: "string" },
    cases: { type: "string" },
    works: { type: "string" },
    record: { type: "boolean", default: false },
    minutes: { type: "string", default: "60" },
    signals: { type: "string", default: "100" },
    races: { type: "string", default: "10000" },
    files: { type: "string", default: "3000" },
    points: { type: "string", default: "30" },
  },
})
const full = values.full
const fixtures = join(__dirname, "../../fixtures/models/llama")
/** Small settings, so that a run takes seconds. */
const small = [
  ...["--model", "world-small", "--workers", "1", "--set", "instructions=6", "--set", "evalInstructions=3"],
  ...["--set", "evalTemperatures=0", "--set", "methods=base,musc", "--set", "bootstrapSamples=100"],
  ...["--set", "checkpointEvery=1", "--set", "batchSize=2"],
]

async function main(): Promise<void> {
  if (values.cases) {
    const rows = await servedCases(values.cases)
    console.log(tableOf(rows))
    if (rows.some(({ lost }) => lost.length)) process.exitCode = 1
    return
  }
  const root = mkdtempSync(join(tmpdir(), "musc-attack-"))
  const limit = full ? 60 * Number(values.minutes) : 180
  const began = Date.now()
  const rows: Tally[] = []
  const seconds = () => limit - (Date.now() - began) / 1000
  /** A part of the time, or all that is left where only some attacks are asked for. */
  const budget = (share: number) => Math.max(10, values.only ? seconds() : limit * share)
  try {
    const run = join(root, "sound")
    const made = await musc(["run", "smoke", ...small, "--no-cache", "--out", run])
    if (made.code !== 0) throw new Error(`the undisturbed run failed: ${lastLine(made.output)}`)
    const parts: Record<string, () => Promise<Tally[]>> = {
      locks: async () => [
        await lockCases(join(root, "lock")),
        await lockRaces(join(root, "races"), full ? Number(values.races) : 300, budget(0.3)),
      ],
      fuzz: async () => [
        await fuzz(join(root, "fuzz"), soundFiles(root, run), fixtures, full ? Number(values.files) : 250, budget(0.4)),
      ],
      models: async () => [
        await hostileModels(join(root, "models"), { model: fixtures, run, every: full, seconds: budget(0.2) }),
      ],
      servers: async () => [await chatServers(), await hubs(modelFiles())],
      texts: async () => [await hostileTexts(root, run, budget(0.15))],
      endurance: () =>
        endurance(full ? 3000 : 100, full ? 10_000 : 300, full ? budget(0.5) : 120, values.works?.split(",")),
      disks: () =>
        fullDisks(
          root,
          (dir) => ["run", "smoke", ...small, "--no-cache", "--out", dir],
          full ? Number(values.points) : 1,
          budget(0.4),
        ),
      signals: async () => {
        const all = worksOf(root, run, small)
        const named = all.filter(({ name }) => !values.works || values.works.split(",").includes(name))
        const works = full ? named : named.slice(0, 1)
        const each = full ? Math.ceil(Number(values.signals) / all.length) : 2
        const tallies: Tally[] = []
        const hub = await hubServer("org/model", modelFiles(), { cuts: Array(1000).fill(60_000) })
        process.env.HF_ENDPOINT = hub.url
        for (const [i, work] of works.entries())
          tallies.push(await kills(join(root, "kills"), work, each, Math.max(30, seconds() / (works.length - i))))
        delete process.env.HF_ENDPOINT
        hub.close()
        return tallies
      },
    }
    for (const [name, part] of Object.entries(parts)) {
      // Endurance finds what grows over hours, so it is no part of the short form unless asked for.
      if (values.only ? !values.only.split(",").includes(name) : name === "endurance" && !full) continue
      console.error(`${name}, ${((Date.now() - began) / 1000).toFixed(0)} s`)
      rows.push(...(await part()))
    }
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
  const table = tableOf(rows)
  console.log(table)
  const minutes = Math.round((Date.now() - began) / 60_000)
  if (values.record) {
    const origin = { commit: commit(), machine: machine(), date: new Date().toISOString().slice(0, 10), minutes }
    const head = `\`npm run attack -- --full\`, ${origin.machine}, ${values.only ? "part by part" : `${minutes} minutes`}\n\n`
    // Attacks that were not among those of today stay as they were.
    const file = "data/results/attack.json"
    const held: Tried[] = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")).rows : []
    const own: Tried[] = rows.map((row) => ({ ...row, date: origin.date, commit: origin.commit }))
    const all = [...held.filter(({ what }) => !rows.some((row) => row.what === what)), ...own]
    await writeAtomic(file, `${JSON.stringify({ ...origin, rows: all }, null, 1)}\n`)
    await writeAtomic("data/results/attack.md", head + tableOf(all))
  }
  if (rows.some(({ lost }) => lost.length)) process.exitCode = 1
}

function modelFiles(): Record<string, Buffer> {
  const names = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "model.safetensors",
  ]
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(fixtures, name))]))
}

/** Sound files of each kind, each in a folder with what belongs to it. */
function soundFiles(root: string, run: string): Sound[] {
  const base = join(root, "kinds")
  const files: Sound[] = []
  const own = (kind: string, name: string, content: string | Buffer) => {
    mkdirSync(join(base, kind), { recursive: true })
    writeFileSync(join(base, kind, name), content)
    files.push({ kind, file: join(base, kind, name) })
  }
  const lines = (rows: object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("")
  own("seeds", "seeds.jsonl", lines([{ instruction: "Write a song.", input: "" }, { prompt: "Sing." }]))
  own("settings", "mine.yaml", "model: world\nmethods: [base, musc]\nlr: 1e-4\n")
  own("preferences", "pairs.jsonl", lines([{ prompt: [{ role: "user", content: "a" }], chosen: "b", rejected: "c" }]))
  own("weighed", "weigh.jsonl", readFileSync(join(run, "seed-0/weigh.jsonl")))
  const items = readdirSync(join(run, "seed-0/evaluate")).find((name) => name.endsWith(".jsonl"))!
  own("items", "items.jsonl", readFileSync(join(run, "seed-0/evaluate", items)))
  own("key", "weigh.key.json", readFileSync(join(run, "seed-0/weigh.key.json")))
  for (const [kind, name] of [
    ["safetensors", "model.safetensors"],
    ["config", "config.json"],
    ["tokenizer", "tokenizer.json"],
    ["tokenizer", "tokenizer_config.json"],
    ["template", "chat_template.jinja"],
  ] as const) {
    cpSync(fixtures, join(base, kind), { recursive: true })
    files.push({ kind, file: join(base, kind, name) })
  }
  for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
    cpSync(join(fixtures, "adapter"), join(base, "adapter"), { recursive: true })
    files.push({ kind: "adapter", file: join(base, "adapter", name) })
  }
  cpSync(run, join(base, "report"), { recursive: true })
  for (const name of ["config.json", "manifest.json", "results.json"])
    for (const kind of ["report", "verify"]) files.push({ kind, file: join(base, "report", name) })
  return files
}

main()
