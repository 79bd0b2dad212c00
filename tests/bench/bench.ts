import { rmSync } from "node:fs"
import { availableParallelism } from "node:os"
import { basename, join, resolve } from "node:path"
import { parseArgs } from "node:util"
import { writeAtomic } from "../../lib/data/files"
import type { Maths } from "../../lib/device/tf"
import { loadConfig, type ModelConfig } from "../../lib/model/config"
import { saveFigure } from "../../lib/plots/picture"
import { modelFolder } from "../../lib/runs/model"
import { commit, machine } from "../../lib/runs/origin"
import { peerVersions, processor } from "./about"
import { peerPython, runOurs, runPeer } from "./child"
import { benchFigures } from "./figure"
import { type Growth, growthNames, measureGrowth } from "./growth"
import type { Answer, Job } from "./jobs"
import { shapeFolder, shapeNames } from "./shapes"
import { decomposeStage, type StageRun } from "./stage"
import { makeWorkload, type Workload } from "./workload"
import { large, loraStepOperations, targetsOf, type Work, worksFor } from "./works"

/** A line of the table: medians over the rounds, with the least and the greatest ratio. */
export interface Row {
  work: string
  model: string
  ours: number
  peer: number | null
  ratio: number | null
  unit: string
  peakMiB: number
  peerPeakMiB: number | null
  spread: [number, number] | null
  target: number | null
  /** largest difference of a step's loss to the peer's */
  lossGap?: number
  /** our peak memory as a share of the peer's, where a share is wanted */
  memory?: { ratio: number; target: number }
  /** tokens written by ours and by the peer */
  tokens?: [number, number]
  /** largest difference of a log-prob */
  logProbGap?: number
}

export interface Results {
  command: string
  date: string
  commit: string
  machine: string
  /** model name, vectors and tiles of the processor */
  processor: string
  /** library, kernels and graphs of ours */
  backend: string
  /** of the peers' packages */
  versions: Record<string, string>
  math: Maths
  rounds: number
  /** GFLOPS of a product of square matrices in f32, see `matmulSpeed` */
  matmulPeak: number
  rows: Row[]
  growth: Growth[]
}

const help = `Times our work against what a user would otherwise pick, on the same model, ids and machine, in turn, each in a process of
its own:

    npm run bench -- [--model DIR | --shape NAME] [--only dpo,step-lora,…] [--rounds 3] [--peers none|PYTHON] [--math bf16]
        [--device cuda] [--against CHECKOUT] [--json]

\`--shape\` makes a random checkpoint in the shape of a published model (${shapeNames.join(", ")}),
so that nothing is downloaded.

Ours works in as many processes as the library takes for the model, one a core for a small one; memory is that of all of
them, files that several map (TensorFlow's library) once, and the share of the matmul peak is that of what one process
reaches with all cores by f32 vectors; products by the tiles of AMX can be above it.

\`--device cuda\` gives both sides the GPU, and a large model work of a GPU's size. Memory is the host's there too. With
\`--math bf16\` PyTorch has bf16 weights there; on a CPU it stays in f32.

\`--against CHECKOUT\` races \`musc decompose\` of this commit against that of another checkout (row \`decompose\`).
\`--only growth\` measures how time and memory grow with pairs, streamed pairs, length, vocabulary and batch.
\`--peers\` takes a Python that has tests/bench/peers/requirements.txt; without it one is made in .venv/bench. Results go to
\`--out\`, by default data/results/bench-MODEL.json, with a figure beside it.
`

const options = (() => {
  try {
    return parseArgs({
      options: {
        model: { type: "string", default: "world" },
        shape: { type: "string" },
        against: { type: "string" },
        only: { type: "string" },
        rounds: { type: "string", default: "3" },
        peers: { type: "string" },
        math: { type: "string", default: "f32" },
        backend: { type: "string", default: "tensorflow" },
        device: { type: "string", default: "cpu" },
        out: { type: "string" },
        json: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    }).values
  } catch (error) {
    process.stderr.write(`${(error as Error).message}; see npm run bench -- --help\n`)
    return process.exit(2)
  }
})()

const median = (values: readonly number[]) => {
  const sorted = [...values].sort((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
}
const rateOf = ({ done, seconds }: Answer) => done / seconds
const short = (x: number) => Number(x.toPrecision(4))
const note = (text: string) => process.stderr.write(`${text}\n`)

/** What all measurements of one call share. */
interface Bench {
  name: string
  config: ModelConfig
  base: Job
  maths: Maths
  rounds: number
  python: string | null
  versions: Record<string, string>
}

async function main() {
  if (options.help) return void process.stdout.write(help)
  const rounds = Number(options.rounds)
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new Error(`--rounds: must be a whole number from 1, got ${options.rounds}`)
  if (options.math !== "f32" && options.math !== "bf16")
    throw new Error(`--math: must be f32 or bf16, got ${options.math}`)
  const { device } = options
  if (device !== "cpu" && device !== "cuda") throw new Error(`--device: must be cpu or cuda, got ${device}`)
  const model = options.shape ? await shapeFolder(options.shape) : await modelFolder(options.model)
  const config = loadConfig(model)
  const threads = availableParallelism()
  const python = options.peers === "none" ? null : (options.peers ?? peerPython())
  const load = await makeWorkload(model, 2048)
  const base = {
    model,
    backend: options.backend,
    device,
    threads,
    bf16: options.math === "bf16" && device === "cuda",
    pairs: load.pairs,
    signals: load.signals,
    prompts: load.prompts,
  }
  const bench: Bench = {
    name: basename(resolve(model)),
    config,
    base: { ...base, work: "matmul" } as Job,
    maths: options.math,
    rounds,
    python,
    versions: python ? peerVersions(python) : {},
  }
  const works = worksFor(config, load.adapter, threads, device)
  const long = works.find(({ name }) => name === "step-512")!
  const known = [...works.map(({ name }) => name), "decompose", "checkpointing", "bf16", ...growthNames]
  // Growth is shown on a small model, where it takes minutes.
  const usual = large(config) ? known.filter((one) => !growthNames.includes(one)) : known
  const wanted = options.only?.split(",").flatMap((one) => (one === "growth" ? growthNames : [one])) ?? usual
  const unknown = wanted.filter((one) => !known.includes(one))
  if (unknown.length) throw new Error(`--only: must be of ${known.join(", ")}, got ${unknown.join(", ")}`)
  if (options.only?.split(",").includes("decompose") && !options.against)
    throw new Error("--only: decompose needs --against CHECKOUT, the folder of another commit")
  try {
    const product = await runOurs(bench.base, "f32")
    const matmulPeak = rateOf(product) / 1e9
    const rows: Row[] = []
    for (const work of works.filter(({ name }) => wanted.includes(name))) {
      const { needs } = work.peer ?? {}
      if (needs && python && !bench.versions[needs]) {
        note(`${work.name}: left out, as the peers' Python has no ${needs}; pip install llama-cpp-python gguf`)
        continue
      }
      const row = await race(bench, work).catch(missed)
      if (row) rows.push(row)
      if (row && work === long) rows.push(shareOfPeak(bench, row, matmulPeak))
    }
    if (wanted.includes("decompose") && options.against) rows.push(await decompose(bench, load, options.against))
    if (wanted.includes("checkpointing")) rows.push(await checkpointing(bench, long))
    if (wanted.includes("bf16")) rows.push(await bf16(bench, works.find(({ name }) => name === "step-lora")!))
    const growth: Growth[] = []
    for (const name of growthNames.filter((one) => wanted.includes(one))) {
      note(name)
      growth.push(await measureGrowth(name, bench.base, load.adapter, (job) => runOurs(job, bench.maths)))
    }
    const about = {
      ...{ date: new Date().toISOString(), commit: commit(), machine: machine(), processor: processor() },
      ...{ backend: product.backend!, versions: bench.versions },
    }
    const command = `npm run bench -- ${process.argv.slice(2).join(" ")}`.trim()
    const results: Results = {
      command,
      ...about,
      math: bench.maths,
      rounds,
      matmulPeak: short(matmulPeak),
      rows,
      growth,
    }
    const out = options.out ?? join(__dirname, `../../data/results/bench-${bench.name}.json`)
    await writeAtomic(out, `${JSON.stringify(results, null, 1)}\n`)
    note(`results: ${[out, ...(await savePictures(results, out))].join(", ")}`)
    if (options.json) console.log(JSON.stringify(rows))
    else console.log(tableOf(results))
  } finally {
    rmSync(load.dir, { recursive: true, force: true })
  }
}

/** Draws `out`.png and `out`-growth.png, of what there is; their paths. */
async function savePictures(results: Results, out: string): Promise<string[]> {
  const { speed, growth } = benchFigures(results)
  const stem = out.replace(/\.json$/, "")
  const saved: string[] = []
  for (const [figure, file] of [
    [speed, `${stem}.png`],
    [growth, `${stem}-growth.png`],
  ] as const) {
    if (!figure) continue
    await saveFigure(figure, file)
    saved.push(file)
  }
  return saved
}

/** A work that ends in an error has no row; those that were measured before it are kept. */
function missed(error: Error): undefined {
  note(error.message)
  process.exitCode = 1
}

/** Ours and the peer in turn, `rounds` times. */
async function race({ name, base, maths, rounds, python }: Bench, work: Work): Promise<Row> {
  const job: Job = { ...base, ...work.job }
  const ours: Answer[] = []
  const peers: Answer[] = []
  for (let round = 0; round < rounds; round++) {
    ours.push(await runOurs(job, work.math ?? maths))
    const tried: Answer[] = []
    for (const variant of (python && work.peer?.variants) || [])
      tried.push(await runPeer(python!, work.peer!.script, { ...job, ...variant }))
    if (tried.length) peers.push(tried.reduce((best, one) => (rateOf(one) > rateOf(best) ? one : best)))
    const rate = (answer?: Answer) => (answer ? short(rateOf(answer)) : "none")
    note(`${work.name} ${round + 1}/${rounds}: ours ${rate(ours[round])}, peer ${rate(peers[round])} ${work.unit}`)
  }
  return rowOf(name, work, ours, peers)
}

function rowOf(model: string, work: Work, ours: readonly Answer[], peers: readonly Answer[]): Row {
  const highest = (answers: readonly Answer[]) => Math.max(...answers.map(({ peakMiB }) => peakMiB))
  const ratios = peers.map((peer, round) => rateOf(ours[round]!) / rateOf(peer))
  const gaps = peers.flatMap(({ losses = [] }) => losses.map((loss, step) => Math.abs(loss - ours[0]!.losses![step]!)))
  return {
    work: work.title,
    model,
    ours: short(median(ours.map(rateOf))),
    peer: peers.length ? short(median(peers.map(rateOf))) : null,
    ratio: peers.length ? short(median(ratios)) : null,
    unit: work.unit,
    peakMiB: highest(ours),
    peerPeakMiB: peers.length ? highest(peers) : null,
    spread: peers.length ? [short(Math.min(...ratios)), short(Math.max(...ratios))] : null,
    target: work.target ?? null,
    ...(work.memoryTarget && peers.length
      ? { memory: { ratio: short(highest(ours) / highest(peers)), target: work.memoryTarget } }
      : {}),
    ...(gaps.length ? { lossGap: short(Math.max(...gaps)) } : {}),
  }
}

/** How much of the machine's best rate the products of a step reach. */
function shareOfPeak({ config, name }: Bench, row: Row, matmulPeak: number): Row {
  const gflops = (tokensPerSecond: number) => ((loraStepOperations(config, 16, 1, 512) / 512) * tokensPerSecond) / 1e9
  const share = (rate: number | null) => (rate === null ? null : short((100 * gflops(rate)) / matmulPeak))
  const work = `share of the matmul peak, ${row.work}`
  const percent = { ours: share(row.ours)!, peer: share(row.peer), unit: "%" }
  return { ...row, work, model: name, ...percent, target: null }
}

/** The first stage with few-shot examples, by this commit and by another one. */
async function decompose(bench: Bench, load: Workload, against: string): Promise<Row> {
  const [ours, peers]: [StageRun[], StageRun[]] = [[], []]
  const place = { model: resolve(bench.base.model), ...load }
  for (let round = 0; round < bench.rounds; round++) {
    ours.push(await decomposeStage({ ...place, checkout: join(__dirname, "../..") }, 64))
    peers.push(await decomposeStage({ ...place, checkout: against }, 64))
    note(
      `decompose ${round + 1}/${bench.rounds}: ours ${ours[round]!.seconds} s, ${against} ${peers[round]!.seconds} s`,
    )
  }
  const answers = (runs: StageRun[]) => runs.map(({ rows: done, ...run }): Answer => ({ done, ...run }))
  const title = `decompose stage, 64 rows, few-shot, whole command, against ${commit(against)}`
  const work = { title, unit: "rows/s" as const, target: targetsOf(bench.config).decompose }
  const row = rowOf(
    bench.name,
    { name: "decompose", job: { work: "generate" }, ...work },
    answers(ours),
    answers(peers),
  )
  return { ...row, tokens: [ours[0]!.tokens, peers[0]!.tokens] }
}

/** A LoRA step that computes its layers twice, against one that keeps their activations. */
async function checkpointing(bench: Bench, work: Work): Promise<Row> {
  const [ours, peers]: [Answer[], Answer[]] = [[], []]
  for (let round = 0; round < bench.rounds; round++) {
    const job: Job = { ...bench.base, ...work.job }
    ours.push(await runOurs({ ...job, gradientCheckpointing: true }, bench.maths))
    peers.push(await runOurs(job, bench.maths))
  }
  return rowOf(bench.name, { ...work, title: `${work.title}: gradient checkpointing against without` }, ours, peers)
}

/** A LoRA step with bf16 maths against f32, and what it does to the log-probs of 32 pairs. */
async function bf16(bench: Bench, work: Work): Promise<Row> {
  const [ours, peers]: [Answer[], Answer[]] = [[], []]
  for (let round = 0; round < bench.rounds; round++) {
    const job: Job = { ...bench.base, ...work.job }
    ours.push(await runOurs(job, "bf16"))
    peers.push(await runOurs(job, "f32"))
  }
  const job: Job = { ...bench.base, work: "logprobs", count: 32 }
  const [rough, exact] = [await runOurs(job, "bf16"), await runOurs(job, "f32")]
  const gaps = exact.logprobs!.map((value, i) => Math.abs(value - rough.logprobs![i]!))
  const row = rowOf(bench.name, { ...work, title: `${work.title}: bf16 maths against f32` }, ours, peers)
  return { ...row, target: null, logProbGap: short(Math.max(...gaps)) }
}

/** The rows as lines for a terminal. */
function tableOf({ rows, growth, matmulPeak, machine: host, processor, backend, math }: Results): string {
  const cell = (value: number | null, unit = "") => (value === null ? "-" : `${value}${unit}`)
  const head = ["work", "ours", "peer", "unit", "ratio", "target", "MiB", "peer MiB", ""]
  const lines = rows.map((row) => [
    row.work,
    cell(row.ours),
    cell(row.peer),
    row.unit,
    row.ratio === null ? "-" : `${row.ratio} [${row.spread!.join(", ")}]`,
    cell(row.target),
    cell(row.peakMiB),
    cell(row.peerPeakMiB),
    [
      row.lossGap === undefined ? "" : `losses differ by ${row.lossGap} at most`,
      row.logProbGap === undefined ? "" : `log-probs differ by ${row.logProbGap} at most`,
      row.memory && `memory ${row.memory.ratio} of the peer's (aim ${row.memory.target})`,
      row.tokens && `${row.tokens.join(" and ")} tokens written`,
    ]
      .filter(Boolean)
      .join("; "),
  ])
  const all = [head, ...lines]
  const widths = head.map((_, i) => Math.max(...all.map((line) => line[i]!.length)))
  const table = all.map((line) =>
    line
      .map((text, i) => text.padEnd(widths[i]!))
      .join("  ")
      .trimEnd(),
  )
  const grown = growth.map(
    ({ title, points }) => `${title}: ${points.map(({ x, y, peakMiB }) => `${x}: ${y} (${peakMiB} MiB)`).join(", ")}`,
  )
  return [
    ...table,
    "",
    `${host}; ${processor}; ${backend}; ${math}; matmul peak ${matmulPeak} GFLOPS in f32`,
    ...grown,
  ].join("\n")
}

main().catch((error) => {
  note(`${error instanceof Error ? error.message : error}`)
  process.exitCode = 1
})
