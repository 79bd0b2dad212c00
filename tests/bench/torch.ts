import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseConfig } from "../../lib/config/config"
import { readJsonl } from "../../lib/data/jsonl"
import type { MetricsLine } from "../../lib/data/results"
import { type InstructionRow, type PairRow, pairRow, type WeighedRow } from "../../lib/data/schema"
import { useBackend } from "../../lib/device/tf"
import { openLocal } from "../../lib/engine/local"
import { readAdapter } from "../../lib/model/adapter"
import { hasPassed } from "../../lib/musc/row"
import type { TrainRow, TrainSettings } from "../../lib/musc/train"
import { weigh } from "../../lib/musc/weigh"
import { trainSettings } from "../../lib/runs/stages"
import { torchScorer } from "../../lib/runs/torch-score"
import { runTraining } from "../../lib/runs/train-stage"
import { killAtStep } from "../support/kill-job"
import { argumentsOf } from "./arguments"

/**
 * Training by Python jobs against training in this process, on the pairs of a run. Says of each way the largest
 * difference over all steps of the loss, of the gradient's norm (relative), and of the adapter's values.
 *
 *     npx tsx tests/bench/torch.ts RUN [--model FOLDER] [--pairs 40] [--epochs 1] [--ways one,two,accumulated,fsdp,killed,unit]
 *
 * RUN is a run folder with seed-0/respond.jsonl; with --model its pairs are scored and learned by that model.
 */

const { values: given, positionals } = argumentsOf(__filename, {
  allowPositionals: true,
  options: {
    model: { type: "string" },
    pairs: { type: "string" },
    epochs: { type: "string" },
    ways: { type: "string", default: "one,two,accumulated,fsdp,killed,unit" },
  },
})

const torchrun = (n: number) => `torchrun --standalone --nproc_per_node ${n}`
/** FSDP2 over two processes of the CPU. */
export const fsdp =
  "env ACCELERATE_USE_CPU=true accelerate launch --use_fsdp --fsdp_version 2 --num_processes 2 --num_machines 1 " +
  "--mixed_precision no --dynamo_backend no --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP --fsdp_state_dict_type FULL_STATE_DICT"

interface Way {
  command: string
  rowsPerPass?: number
  /** Killed after this step, and started again. */
  killedAfter?: number
  /** Weights all 1, against plain DPO. */
  unit?: boolean
}

const ways: Record<string, Way> = {
  one: { command: torchrun(1), rowsPerPass: 8 },
  two: { command: torchrun(2), rowsPerPass: 8 },
  accumulated: { command: torchrun(2), rowsPerPass: 2 },
  fsdp: { command: fsdp, rowsPerPass: 4 },
  killed: { command: torchrun(2), rowsPerPass: 4, killedAfter: 6 },
  unit: { command: torchrun(1), rowsPerPass: 8, unit: true },
}

const linesOf = (dir: string): MetricsLine[] =>
  readFileSync(join(dir, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))

/** Largest difference of two adapters' values. */
function apart(a: string, b: string): number {
  const other = readAdapter(b).tensors
  let most = 0
  for (const [name, { A, B }] of readAdapter(a).tensors) {
    const theirs = other.get(name)!
    for (const [ours, its] of [
      [A, theirs.A],
      [B, theirs.B],
    ] as const)
      for (let i = 0; i < ours.data.length; i++) most = Math.max(most, Math.abs(ours.data[i]! - its.data[i]!))
  }
  return most
}

async function main(run: string): Promise<void> {
  await useBackend()
  const config = parseConfig(JSON.parse(readFileSync(join(run, "config.json"), "utf8")))
  const local = openLocal(given.model ?? config.model)
  const engine = local.engine()
  const rows: WeighedRow[] = []
  for await (const row of readJsonl(join(run, "seed-0/respond.jsonl"), pairRow.or(pairRow.partial().loose()))) {
    if (!hasPassed<PairRow>(row as PairRow) || rows.length >= Number(given.pairs ?? Number.POSITIVE_INFINITY)) continue
    rows.push((await weigh(engine, row as PairRow, { weightings: ["uniform", "kl"] })) as WeighedRow)
  }
  engine.dispose()
  const root = mkdtempSync(join(tmpdir(), "musc-bench-torch-"))
  async function* pairs() {
    yield* rows as (TrainRow & InstructionRow)[]
  }
  const shared = { key: "bench", pairs, checkpointEvery: 4, onNote: () => {} }
  const settingsOf = (method: "musc" | "coarse"): TrainSettings => ({
    ...trainSettings(config, method, config.seed)!,
    ...(given.epochs && { epochs: Number(given.epochs) }),
  })
  const here = async (method: "musc" | "coarse") => {
    const dir = join(root, method)
    if (!existsSync(dir)) await runTraining({ ...shared, dir, by: local, settings: settingsOf(method) })
    return dir
  }
  try {
    for (const name of given.ways.split(",")) {
      const { command, rowsPerPass = 4, killedAfter, unit } = ways[name]!
      const ours = await here(unit ? "coarse" : "musc")
      const torch = { command, rowsPerPass, dtype: "float32" as const }
      const dir = join(root, name)
      const by = { model: local, torch, scorer: torchScorer(local, torch) }
      const settings = unit ? { ...settingsOf("musc"), weighting: "uniform" as const } : settingsOf("musc")
      const train = () => runTraining({ ...shared, dir, by, settings })
      if (killedAfter) {
        const killed = killAtStep(`${dir}.job`, killedAfter)
        const error = await train().then(
          () => "none",
          (reason: Error) => reason.message.split(";")[0],
        )
        console.log(`${name}: ${error} after step ${await killed}`)
      }
      const adapter = await train()
      const [a, b] = [linesOf(ours), linesOf(dir)]
      const most = (of: (line: MetricsLine, i: number) => number) => Math.max(...b.map(of)).toExponential(1)
      const once = b.length === a.length && b.every(({ step }, i) => step === i + 1)
      console.log(
        `${name}: ${b.length} steps${once ? "" : ", NOT each once"}; loss ${most(({ loss }, i) => Math.abs(loss - a[i]!.loss))}, ` +
          `gradient norm ${most(({ grad_norm }, i) => Math.abs(grad_norm / a[i]!.grad_norm - 1))}, ` +
          `adapter ${apart(join(ours, "adapter"), adapter).toExponential(1)}, ` +
          `first loss - ln 2 ${Math.abs(b[0]!.loss - Math.LN2).toExponential(1)}`,
      )
    }
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

if (require.main === module) void main(positionals[0]!)
