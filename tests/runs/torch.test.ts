import { existsSync, mkdtempSync, readdirSync, readFileSync, truncateSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import type { MetricsLine } from "../../lib/data/results"
import type { InstructionRow, PairRow, WeighedRow } from "../../lib/data/schema"
import { useBackend } from "../../lib/device/tf"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { readAdapter } from "../../lib/model/adapter"
import { makePairs } from "../../lib/musc/pipeline"
import { hasPassed } from "../../lib/musc/row"
import { type TrainRow, type TrainSettings, trainDefaults } from "../../lib/musc/train"
import { weigh, weighRequest } from "../../lib/musc/weigh"
import { pythonFolder } from "../../lib/native/python-env"
import { scoredAhead, torchScorer } from "../../lib/runs/torch-score"
import { runTraining } from "../../lib/runs/train-stage"
import { worldInstructions } from "../../lib/world/spec"
import { killAtStep } from "../support/kill-job"

// The jobs for real, against this process. They need `npx musc python` (or MUSC_PYTHON), which nobody else does.
const python = pythonFolder()
const settings: TrainSettings = { ...trainDefaults, rank: 4, lr: 1e-3, batchSize: 5, epochs: 2, seed: 3 }
const torch = (command: string, rowsPerPass = 4) => ({ command, rowsPerPass, dtype: "float32" as const })
const launch = (processes: number) => `torchrun --standalone --nproc_per_node ${processes}`
const fsdp =
  "env ACCELERATE_USE_CPU=true accelerate launch --use_fsdp --fsdp_version 2 --num_processes 2 --num_machines 1 " +
  "--mixed_precision no --dynamo_backend no --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP --fsdp_state_dict_type FULL_STATE_DICT"

let local: LocalModel
const rows: WeighedRow[] = []
const folder = () => mkdtempSync(join(tmpdir(), "musc-torch-"))
const metricsOf = (dir: string): MetricsLine[] =>
  readFileSync(join(dir, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))
async function* pairs(): AsyncGenerator<TrainRow & InstructionRow> {
  yield* rows
}
const training = (dir: string, more: object) => ({
  ...{ dir, key: "k", by: local, pairs, settings, checkpointEvery: 2, onNote: () => {} },
  ...more,
})

/** Largest difference of two adapters' values. */
function apart(a: string, b: string): number {
  const [one, two] = [readAdapter(a), readAdapter(b)]
  let most = 0
  for (const [name, { A, B }] of one.tensors) {
    const other = two.tensors.get(name)!
    A.data.forEach((x, i) => {
      most = Math.max(most, Math.abs(x - other.A.data[i]!))
    })
    B.data.forEach((x, i) => {
      most = Math.max(most, Math.abs(x - other.B.data[i]!))
    })
  }
  return most
}
const lossGap = (a: readonly MetricsLine[], b: readonly MetricsLine[]) =>
  Math.max(...a.map(({ loss }, i) => Math.abs(loss - b[i]!.loss)))

describe.skipIf(!python)("scoring and training by jobs of Python", () => {
  beforeAll(async () => {
    process.env.OMP_NUM_THREADS = "1" // two processes share the cores
    await useBackend()
    local = openLocal("world")
    const engine = local.engine()
    for await (const row of makePairs(engine, worldInstructions({ n: 16, seed: 5, split: "train" }))) {
      if (!hasPassed<PairRow>(row) || rows.length === 12) continue
      const weighed = await weigh(engine, row, { weightings: ["kl"] })
      if (hasPassed<WeighedRow>(weighed)) rows.push(weighed)
    }
    engine.dispose()
  }, 300_000)

  it("give the losses and the adapter of this process, with one process, two that accumulate, and FSDP2", async () => {
    const here = folder()
    const adapter = await runTraining(training(here, {}))
    const ours = metricsOf(here)
    expect(ours).toHaveLength(6)
    for (const by of [torch(launch(1)), torch(launch(2), 1), torch(fsdp)]) {
      const dir = join(folder(), "train")
      const made = await runTraining(training(dir, { by: { model: local, torch: by, scorer: torchScorer(local, by) } }))
      const theirs = metricsOf(dir)
      expect(theirs.map(({ step, steps }) => [step, steps])).toEqual(ours.map(({ step, steps }) => [step, steps]))
      expect(Math.abs(theirs[0]!.loss - Math.LN2)).toBeLessThan(1e-6)
      expect(lossGap(ours, theirs)).toBeLessThan(1e-5)
      expect(theirs.map(({ accuracy }) => accuracy)).toEqual(
        ours.map(({ accuracy }) => expect.closeTo(accuracy as number)),
      )
      expect(apart(adapter, made)).toBeLessThan(1e-4)
      expect(existsSync(`${dir}.job`)).toBe(false)
    }
  }, 600_000)

  it("go on from a checkpoint after a stop, each step once, to the same losses", async () => {
    const by = torch(launch(1))
    const dir = join(folder(), "train")
    const stop = new AbortController()
    const more = { by: { model: local, torch: by, scorer: torchScorer(local, by) } }
    const onStep = ({ step }: { step: number }) => step === 3 && stop.abort()
    await expect(runTraining(training(dir, { ...more, signal: stop.signal, onStep }))).rejects.toThrow(/stopped/)
    expect(readdirSync(join(`${dir}.job`, "state")).some((name) => name.startsWith("checkpoint-"))).toBe(true)
    await runTraining(training(dir, more))
    const here = folder()
    await runTraining(training(here, {}))
    expect(metricsOf(dir).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6])
    expect(lossGap(metricsOf(here), metricsOf(dir))).toBeLessThan(1e-5)
  }, 600_000)

  it("go on after a kill in the middle, and with weights of 1 they are plain DPO", async () => {
    const by = torch(launch(2))
    const dir = join(folder(), "train")
    const plain = { ...settings, weighting: "uniform" as const }
    const more = { settings: plain, by: { model: local, torch: by, scorer: torchScorer(local, by) } }
    const killed = killAtStep(`${dir}.job`, 3)
    await expect(runTraining(training(dir, more))).rejects.toThrow(/torchrun ended with SIGKILL/)
    expect(await killed).toBeLessThan(6)
    await runTraining(training(dir, more))
    const here = folder()
    await runTraining(training(here, { settings: plain }))
    expect(metricsOf(dir).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6])
    expect(lossGap(metricsOf(here), metricsOf(dir))).toBeLessThan(1e-5)
  }, 600_000)

  it("give the signals of this process, and a torn shard comes out the same to the byte", async () => {
    const by = torch(launch(2), 2)
    const job = folder()
    const requests = rows.map(weighRequest)
    const scored = async () => {
      const ready = await scoredAhead(torchScorer(local, by), requests, { folder: job })
      const signals = await Promise.all(requests.map((request) => ready.score(request)))
      ready.dispose()
      return signals
    }
    const signals = await scored()
    for (const [i, [chosen, rejected]] of signals.entries()) {
      for (const [side, theirs] of [
        ["chosen", chosen!],
        ["rejected", rejected!],
      ] as const) {
        const ours = rows[i]!.signals[side]
        expect(theirs.tokens).toEqual(ours.tokens)
        for (const name of [
          "logprob",
          "logprob_noised",
          "logprob_empty",
          "entropy",
          "entropy_noised",
          "kl",
          "kl_reverse",
        ] as const)
          theirs[name].forEach((x, t) => {
            expect(Math.abs(x - ours[name][t]!)).toBeLessThan(1e-4)
          })
      }
    }
    const shard = join(job, "signals-1-of-2.jsonl")
    const whole = readFileSync(shard)
    truncateSync(shard, Math.floor(whole.length * 0.6))
    const { rmSync } = await import("node:fs")
    rmSync(shard.replace("jsonl", "done"))
    await scored()
    expect(readFileSync(shard).equals(whole)).toBe(true)
  }, 600_000)
})
