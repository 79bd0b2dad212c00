/** One job in a process of its own: `ours.ts JOB`, a JSON object, answered by one JSON line. */
import { fork } from "node:child_process"
import { once } from "node:events"
import { readFileSync, writeFileSync } from "node:fs"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import type { Message } from "../../lib/data/schema"
import { describeDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { usualWorkers } from "../../lib/engine/workers"
import { readAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { planFor } from "../../lib/model/executor"
import { generate } from "../../lib/model/generate"
import { pack, responseLogProbs, type Sequence } from "../../lib/model/logprobs"
import { bind, fromAdapter, initLora, type Lora, release } from "../../lib/model/lora"
import { type Model, sizeOf } from "../../lib/model/transformer"
import { initModel, loadModel, parameterCount } from "../../lib/model/weights"
import { matmulSpeed } from "../../lib/native/doctor"
import { rng } from "../../lib/rng"
import type { Learner } from "../../lib/train/gradients"
import { train } from "../../lib/train/loop"
import { preferenceDefaults } from "../../lib/train/losses"
import { type PairItem, type PreferenceObjective, type SftObjective, tokensOf } from "../../lib/train/objective"
import { withReference } from "../../lib/train/pairs"
import type { Answer, Job } from "./jobs"
import { memory } from "./memory-of"
import { streamed } from "./stream"

const job: Job = JSON.parse(process.argv[2]!)
const tokenBudget = 4096

function rows<Row>(file: string): Row[] {
  const lines = readFileSync(file, "utf8").trimEnd().split("\n")
  return lines.slice(0, job.count).map((line) => JSON.parse(line))
}

/** Most memory that this process has had, in MiB. */
const peak = () => Math.round(memory("VmHWM") ?? process.resourceUsage().maxRSS / 1024)

/**
 * Most memory that this process and others have together from now on, in MiB; of files that all of them map the largest
 * counts.
 */
function watched(pids: () => readonly number[]): () => number {
  let most = 0
  const look = () => {
    const of = (name: "RssAnon" | "RssShmem" | "RssFile") =>
      [process.pid, ...pids()].map((pid) => memory(name, pid) ?? 0)
    const own = [...of("RssAnon"), ...of("RssShmem")].reduce((a, b) => a + b)
    most = Math.max(most, own + Math.max(...of("RssFile")))
  }
  const timer = setInterval(look, 20)
  return () => {
    look()
    clearInterval(timer)
    return Math.round(most)
  }
}

async function timed(work: () => unknown): Promise<number> {
  const start = performance.now()
  await work()
  return (performance.now() - start) / 1000
}

/** Where all weights are trained they are floats, whatever the checkpoint has. */
const load = (): Model =>
  loadModel(job.model, loadConfig(job.model), job.work === "step" && !job.adapter ? { asBf16: false } : {})
const adapter = (model: Model): Lora | undefined =>
  job.adapter ? fromAdapter(readAdapter(job.adapter, model.config)) : undefined

const planOf = (model: Model, adapter: boolean, tokens: number) =>
  planFor(sizeOf(model.params), { kind: "train", adapter, tokens, checkpointing: job.gradientCheckpointing })

/** Preference pairs in their order, once; reference log-probs included. */
async function dpo(): Promise<Partial<Answer>> {
  const model = load()
  const pairs = rows<{ prompt: number[]; chosen: number[]; rejected: number[] }>(job.pairs)
  const ones = (ids: number[]) => ids.map(() => 1)
  const items = pairs.map(
    (pair): PairItem => ({ ...pair, chosenWeights: ones(pair.chosen), rejectedWeights: ones(pair.rejected) }),
  )
  const losses: number[] = []
  const objective: PreferenceObjective = {
    kind: "preference",
    preference: { ...preferenceDefaults, beta: job.beta! },
  }
  const tokens = items.reduce((sum, item) => sum + tokensOf(item), 0)
  const learner = { model, lora: adapter(model), objective, plan: planOf(model, job.adapter !== undefined, tokens) }
  const seconds = await timed(async () => {
    const ready = await withReference(model, items, tokenBudget)
    await train({
      ...learner,
      batches: {
        steps: Math.ceil(ready.length / job.batch!),
        at: (step) => ready.slice(step * job.batch!, (step + 1) * job.batch!),
      },
      lr: job.lr!,
      warmup: 0,
      tokenBudget,
      onStep: ({ loss }) => void losses.push(loss),
    })
  })
  return { done: items.length, seconds, losses }
}

/** Steps on random tokens, every position a target; with graphs, which the first ones make. */
async function steps(learner: Learner & { objective: SftObjective }) {
  const { model } = learner
  const { batch, length, warmup = 1, steps: counted } = job as Required<Job>
  const random = rng(1, "bench-ids")
  const ids = Array.from({ length: batch }, () => Array.from({ length }, () => random.int(model.config.vocabSize)))
  const sequences = ids.map((row): Sequence => ({ prompt: row.slice(0, 1), responses: [row.slice(1)] }))
  let start = performance.now()
  await train({
    ...learner,
    batches: { steps: warmup + counted, at: () => sequences },
    lr: 1e-4,
    shape: "constant",
    warmup: 0,
    tokenBudget,
    onStep: ({ step }) => {
      if (step === warmup) start = performance.now()
    },
  })
  return { done: batch * length * counted, seconds: (performance.now() - start) / 1000 }
}

const even: SftObjective = { kind: "sft", weighting: "even" }

async function step(): Promise<Partial<Answer>> {
  const model = load()
  return steps({
    model,
    lora: adapter(model),
    objective: even,
    plan: planOf(model, job.adapter !== undefined, Infinity),
  })
}

/** A LoRA step of a Llama as large as the embedded model but for its vocabulary; memory above the loaded model. */
async function vocabulary(): Promise<Partial<Answer>> {
  const model = initModel({ ...loadConfig(job.model), vocabSize: job.vocabulary! }, 1)
  // Numbers made in JavaScript are copied into the backend at their first use: here, so that the copy does not count.
  for (const [name, made] of Object.entries(model.params)) {
    model.params[name] = tf.mul(made, 1)
    made.dispose()
  }
  const lora = initLora(model.config, { rank: 16, alpha: 32, seed: 1 })
  const before = await fresh()
  const answer = await steps({ model, lora, objective: even })
  return { ...answer, extraMiB: memory("VmHWM")! - before }
}

/** Forgets the highest mark so far (Linux) and gives what is resident now. */
async function fresh(): Promise<number> {
  setFlagsFromString("--expose-gc")
  const collect: () => void = runInNewContext("gc")
  for (let i = 0; i < 2; i++) {
    collect()
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  try {
    writeFileSync("/proc/self/clear_refs", "5")
  } catch {
    // the mark then stays that of loading
  }
  return memory("VmRSS")!
}

interface SignalRow {
  texts: { clean: Message[]; noised: Message[]; empty: Message[]; responses: string[] }
}

async function signals(): Promise<Partial<Answer>> {
  const workers = job.workers ?? usualWorkers(parameterCount(loadConfig(job.model)))
  const local: LocalModel = openLocal(job.model, { workers })
  const engine = local.engine()
  const most = local.pool ? watched(() => local.pool!.pids) : peak
  const all = rows<SignalRow>(job.signals)
  await Promise.all(all.slice(0, 64).map(({ texts }) => engine.score(texts))) // every process is ready then
  const seconds = await timed(() => Promise.all(all.map(({ texts }) => engine.score(texts))))
  const peakMiB = most()
  engine.dispose()
  return { done: all.length, seconds, peakMiB }
}

/** By as many processes as the library would take, each with its share of the prompts. */
async function generation(): Promise<Partial<Answer>> {
  const workers = job.workers ?? usualWorkers(parameterCount(loadConfig(job.model)))
  return workers > 1 && !job.part ? generateTogether(workers) : generateAlone()
}

async function generateTogether(workers: number): Promise<Partial<Answer>> {
  const threads = `${Math.max(1, Math.floor(job.threads / workers))}`
  const children = Array.from({ length: workers }, (_, i) =>
    fork(__filename, [JSON.stringify({ ...job, part: [i, workers] })], {
      execArgv: process.execArgv,
      env: { ...process.env, TF_NUM_INTRAOP_THREADS: threads },
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    }),
  )
  const most = watched(() => children.flatMap(({ pid }) => pid ?? []))
  const heard = () => Promise.all(children.map(async (child) => (await once(child, "message"))[0] as Partial<Answer>))
  await heard()
  const answering = heard()
  const seconds = await timed(() => {
    for (const child of children) child.send("go")
    return answering
  })
  const answers = await answering
  const done = answers.reduce((sum, answer) => sum + answer.done!, 0)
  return { done, seconds, peakMiB: most() }
}

/**
 * Whole generations before those that are timed, as in peers/generate.py: code is compiled in the course of the first
 * ones.
 */
const warmups = 2

async function generateAlone(): Promise<Partial<Answer>> {
  const model = load()
  const bound = bind(model, { plan: planFor(sizeOf(model.params), { kind: "generate" }) })
  const [index, of] = job.part ?? [0, 1]
  const prompts = rows<{ prompt: number[] }>(job.prompts)
    .slice(0, job.batch)
    .filter((_, i) => i % of === index)
  const write = (maxTokens: number) =>
    generate(
      bound,
      prompts.map(({ prompt }, i) => ({ prompt, seed: i, temperature: 0, maxTokens })),
      { eosIds: [] },
    )
  for (let i = 0; i < warmups; i++) await write(job.tokens!)
  if (job.part) {
    process.send!({})
    await once(process, "message")
  }
  const { generations = 1 } = job
  const seconds = await timed(async () => {
    for (let i = 0; i < generations; i++) await write(job.tokens!)
  })
  release(bound)
  const answer = { done: generations * prompts.length * job.tokens!, seconds }
  if (job.part) {
    process.send!(answer)
    process.disconnect()
  }
  return answer
}

/** Log-probs of the answers, to compare one arithmetic with another. */
async function logprobs(): Promise<Partial<Answer>> {
  const model = load()
  const bound = bind(model)
  const pairs = rows<{ prompt: number[]; chosen: number[]; rejected: number[] }>(job.pairs)
  const values = pairs.flatMap(({ prompt, chosen, rejected }) => {
    const packed = pack([{ prompt, responses: [chosen, rejected] }])
    return [...tf.tidy(() => responseLogProbs(bound, packed).dataSync())]
  })
  return { done: values.length, seconds: 0, logprobs: values }
}

/** The machine's best f32 matrix product: `done` floating-point operations a second. */
async function matmul(): Promise<Partial<Answer>> {
  return { done: 1e9 * (await matmulSpeed(job.backend)), seconds: 1 }
}

const works: Record<Job["work"], () => Promise<Partial<Answer>>> = {
  dpo,
  step,
  signals,
  generate: generation,
  logprobs,
  vocabulary,
  matmul,
  stream: () => streamed(job),
}

async function main() {
  const { reason, detail, machine } = await useBackend(job.backend)
  process.stderr.write(`${reason}\n`)
  const answer = await works[job.work]()
  const backend = [detail, describeDevice(machine)].join("; ")
  console.log(JSON.stringify({ peakMiB: peak(), backend, ...answer }))
}

main()
