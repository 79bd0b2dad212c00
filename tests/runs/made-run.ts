import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { EvalItem, MetricsLine, Results, Score } from "../../lib/data/results"
import type { Edit, InstructionRow, TokenSignals, WeighedRow } from "../../lib/data/schema"
import { applyEdits, corruptDefaults, planEdits } from "../../lib/musc/corrupt"
import { type WeightingName, weightsOf } from "../../lib/musc/weigh"
import { type Rng, rng } from "../../lib/rng"
import { heed } from "../../lib/world/corpus"
import { negate, questionOf } from "../../lib/world/kinds"
import { realise } from "../../lib/world/realise"
import {
  csr,
  gradeAnswer,
  instructionOf,
  isr,
  substitute,
  type WorldSpec,
  wordSpec,
  worldInstructions,
} from "../../lib/world/spec"

/** A run folder without a model: instructions, edits, answers and verdicts are the world's own, signals are random. */
export interface MadeRun {
  pairs: number
  seeds: readonly number[]
  evals: number
  weightings: readonly WeightingName[]
  methods: Readonly<Record<string, number>>
  temperatures: readonly number[]
  steps: number
}

/** By method: how much of the lost care it has back, 0 to 1. */
export const madeRun: MadeRun = {
  pairs: 40,
  seeds: [0, 1],
  evals: 60,
  weightings: ["uniform", "contrast", "kl"],
  methods: { base: 0, sft: 0.02, coarse: 0.7, musc: 0.78 },
  temperatures: [0, 0.5],
  steps: 60,
}

type World = InstructionRow & { world: WorldSpec }

const normal = (random: Rng): number => Array.from({ length: 6 }, random.next).reduce((a, b) => a + b, -3) * Math.SQRT2

function signals(answer: string, random: Rng): TokenSignals {
  const tokens = [...(answer.match(/\s*\S+?(?=[.,!;]|\s|$)|[.,!;]/g) ?? []), "<|end|>"]
  const draw = (of: (x: number) => number) => tokens.map(() => Number(of(normal(random)).toFixed(4)))
  const logprob = draw((x) => -Math.exp(x - 1))
  const gap = draw((x) => (x > 1 ? 2 * x : 0.1 * x))
  return {
    tokens,
    logprob,
    logprob_noised: logprob.map((value, t) => Math.min(-1e-4, value - gap[t]!)),
    logprob_empty: logprob.map((value) => value - 1.5),
    entropy: draw((x) => Math.exp(0.5 * x - 1)),
    entropy_noised: draw((x) => Math.exp(0.5 * x - 1)),
    kl: gap.map((value) => value * value * 0.2),
    kl_reverse: gap.map((value) => value * value * 0.25),
  }
}

function weighed(
  row: World,
  seed: number,
  names: readonly WeightingName[],
): WeighedRow | (InstructionRow & { failure: { stage: string; reason: string } }) {
  const random = rng(seed, "made", row.id)
  const { constraints } = row.world
  const questions = constraints.map(questionOf)
  const edits: Edit[] = planEdits({ id: row.id, constraints: questions }, { ...corruptDefaults, seed }).map(
    ({ index, kind }) => {
      const item = constraints[index]!
      const after =
        random.next() < 0.8 && kind === "constraint-negate" ? negate(item) : substitute(item, constraints, random)
      return { index, kind, before: questions[index]!, after: kind === "constraint-dropout" ? null : questionOf(after) }
    },
  )
  if (random.next() < 0.06) return { ...row, failure: { stage: "decompose", reason: "fewer than 2 constraints" } }
  if (random.next() < 0.08)
    return { ...row, failure: { stage: "corrupt", reason: "constraint-negate: question unchanged" } }
  if (random.next() < 0.05)
    return { ...row, failure: { stage: "recombine", reason: "clean and noised instruction are the same" } }
  if (random.next() < 0.03) return { ...row, failure: { stage: "respond", reason: "identical answers" } }
  const dropped = new Set(edits.map(({ index }) => index))
  const noised = wordSpec(
    constraints.filter((_, i) => !dropped.has(i)),
    random,
  )
  const chosen = realise(row.world, rng(seed, row.id, "answer"), (_, k) => random.next() < heed(row.world, k) + 0.15)
  const rejected = realise(noised, rng(seed, row.id, "answer"), (_, k) => random.next() < heed(noised, k) + 0.15)
  const both = { chosen: signals(chosen, random), rejected: signals(rejected, random) }
  return {
    ...row,
    constraints: questions,
    noised_constraints: applyEdits(questions, edits),
    edits,
    clean_instruction: row.instruction,
    noised_instruction: instructionOf(noised),
    chosen,
    rejected,
    signals: both,
    weights: Object.fromEntries(names.map((name) => [name, weightsOf(both, name, { id: row.id, seed })])),
  }
}

const lines = (rows: readonly object[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join("")

function metrics(method: string, seed: number, steps: number): MetricsLine[] {
  const random = rng(seed, "metrics", method)
  return Array.from({ length: steps }, (_, i) => {
    const gained = (method === "musc" ? 3 : 2.4) * (1 - Math.exp((-4 * i) / steps)) + 0.3 * normal(random) * (i ? 1 : 0)
    const line = { step: i + 1, steps, lr: 1e-4, grad_norm: 1, tokens: 900 }
    if (method === "sft") return { ...line, loss: 1.1 + 0.5 * Math.exp(-i / 10) + 0.05 * normal(random) }
    const chosen_reward = -0.35 * gained + 0.1 * normal(random) * (i ? 1 : 0)
    const loss = Math.log1p(Math.exp(-gained))
    return {
      ...line,
      loss,
      chosen_reward,
      rejected_reward: chosen_reward - gained,
      margin: gained,
      accuracy: Math.min(1, Math.max(0, 0.5 + gained / 6)),
    }
  })
}

function answers(method: string, care: number, seed: number, temperature: number, n: number): EvalItem[] {
  return worldInstructions({ n, seed: 99, split: "eval" }).map((row) => {
    const random = rng(seed, "eval", row.id, method, temperature)
    const heeds = (_: unknown, k: number) =>
      random.next() < heed(row.world, k) + care * (1 - heed(row.world, k)) - 0.05 * temperature
    const answer = realise(row.world, rng(seed, row.id, temperature), heeds)
    const constraints = gradeAnswer(row.world, answer).map(({ question, kind, satisfied }) => ({
      question,
      kind,
      satisfied,
    }))
    return { id: row.id, seed, method, temperature, instruction: row.instruction, answer, constraints }
  })
}

const graded = (items: readonly EvalItem[]) =>
  items.map((item) => item.constraints.map((c) => ({ ...c, satisfied: c.satisfied === true })))

function scoreOf(items: readonly EvalItem[], seeds: readonly number[]): Score {
  const of = (some: readonly EvalItem[]) => ({
    csr: csr(graded(some) as never),
    isr: isr(graded(some) as never),
    n: some.length,
  })
  const { csr: c, isr: i, n } = of(items)
  const around = (x: number): [number, number] => [
    x - 1.96 * Math.sqrt((x * (1 - x)) / n),
    x + 1.96 * Math.sqrt((x * (1 - x)) / n),
  ]
  return {
    csr: c,
    isr: i,
    n,
    csr_interval: around(c),
    isr_interval: around(i),
    unreadable: 0,
    seeds: seeds.map((seed) => ({ seed, ...of(items.filter((item) => item.seed === seed)) })),
  }
}

function resultsOf(items: readonly EvalItem[], { seeds, temperatures, methods }: MadeRun): Results {
  const names = Object.keys(methods)
  const scores = Object.fromEntries(
    names.map((name) => [
      name,
      Object.fromEntries(
        temperatures.map((t) => [
          `T${t}`,
          scoreOf(
            items.filter((item) => item.method === name && item.temperature === t),
            seeds,
          ),
        ]),
      ),
    ]),
  )
  const differences = names.slice(1).flatMap((method) =>
    temperatures.map((t) => {
      const [a, b] = [scores[method]![`T${t}`]!, scores.base![`T${t}`]!]
      const gap = (rate: "csr" | "isr") => a[rate] - b[rate]
      const interval = (rate: "csr" | "isr"): [number, number] => [gap(rate) - 0.04, gap(rate) + 0.04]
      return {
        method,
        against: "base",
        temperature: `T${t}`,
        csr: gap("csr"),
        isr: gap("isr"),
        csr_interval: interval("csr"),
        isr_interval: interval("isr"),
      }
    }),
  )
  return {
    methods: scores,
    differences,
    seeds: [...seeds],
    pairs: seeds.map((seed) => ({ seed, n: 37, chosen_csr: 0.7, rejected_csr: 0.57 })),
  }
}

/** Writes the run folder; `last` stops it behind a stage. */
export function writeMadeRun(dir: string, made: MadeRun = madeRun, last?: string): void {
  const { pairs, seeds, evals, methods, temperatures, steps, weightings } = made
  mkdirSync(dir, { recursive: true })
  const json = (name: string, value: object) => writeFileSync(join(dir, name), JSON.stringify(value, null, 2))
  json("config.json", {
    model: "world",
    instructionsFrom: "world",
    weighting: "contrast",
    weightings,
    methods: Object.keys(methods),
    evalTemperatures: temperatures,
    seed: seeds[0],
    repeat: seeds.length,
    lr: 1e-3,
    beta: 0.1,
    noiseRatio: 0.3,
  })
  const items: EvalItem[] = []
  for (const seed of seeds) {
    const folder = join(dir, `seed-${seed}`)
    mkdirSync(join(folder, "evaluate"), { recursive: true })
    const rows = worldInstructions({ n: pairs, seed, split: "train" }).map((row) => weighed(row, seed, weightings))
    const stages = ["source", "decompose", "corrupt", "recombine", "respond", "weigh"]
    for (const [at, stage] of stages.entries()) {
      const asOf = (row: (typeof rows)[number]) =>
        row.failure && stages.indexOf(row.failure.stage) > at
          ? {
              ...row,
              constraints: ["a?", "b?"],
              noised_constraints: ["a?"],
              edits: [{ index: 1, kind: "constraint-dropout", before: "b?", after: null }],
              clean_instruction: "a b",
              noised_instruction: "a",
              failure: undefined,
            }
          : row
      writeFileSync(join(folder, `${stage}.jsonl`), lines(rows.map(asOf)))
      if (stage === last) return
    }
    for (const [method, care] of Object.entries(methods)) {
      if (method !== "base") {
        mkdirSync(join(folder, "train", method), { recursive: true })
        writeFileSync(join(folder, "train", method, "metrics.jsonl"), lines(metrics(method, seed, steps)))
      }
      for (const temperature of temperatures) {
        const some = answers(method, care, seed, temperature, evals)
        writeFileSync(join(folder, "evaluate", `${method}-T${temperature}.jsonl`), lines(some))
        items.push(...some)
      }
    }
  }
  json("manifest.json", {
    musc: "0.1.0",
    node: "22.12.0",
    backend: "tensorflow (cpu, native)",
    model: { name: "world", fingerprint: "ab12" },
    packages: { zod: "4.6.7", yaml: "2.9.1" },
    command: "musc run smoke --set repeat=2 --out runs/smoke",
    started: "2026-11-22T18:00:00Z",
    finished: "2026-11-22T18:09:00Z",
    files: { "seed-0/weigh.jsonl": "9f".repeat(32) },
  })
  json("results.json", resultsOf(items, made))
}
