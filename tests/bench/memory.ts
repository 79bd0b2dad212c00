/**
 * Measures the peak memory of each stage, every one in a process of its own, beside what `musc plan` says:
 *
 *     npx tsx tests/bench/memory.ts MODEL [--length 128] [--batch 4] [--rank 8]
 *
 * Prints a table; the figures of tests/model/memory.test.ts were made by it. Linux only (VmHWM of /proc/self/status).
 */

import { execFileSync } from "node:child_process"
import { readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { tf, useBackend } from "../../lib/device/tf"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { loadConfig } from "../../lib/model/config"
import { planFor } from "../../lib/model/executor"
import { generate } from "../../lib/model/generate"
import { contrast, pack } from "../../lib/model/logprobs"
import { bind, initLora } from "../../lib/model/lora"
import { type PlanStage, planNeed, planStages, workOf } from "../../lib/model/memory"
import { parameterCount } from "../../lib/model/weights"
import { rng } from "../../lib/rng"
import { train } from "../../lib/train/loop"
import { preferenceDefaults } from "../../lib/train/losses"
import { argumentsOf } from "./arguments"

const { values: given, positionals } = argumentsOf(__filename, {
  allowPositionals: true,
  options: {
    length: { type: "string", default: "128" },
    batch: { type: "string", default: "4" },
    rank: { type: "string", default: "8" },
    stage: { type: "string" },
  },
})
const dir = positionals[0] ?? "data/models/world"
const [length, batch, rank] = [Number(given.length), Number(given.batch), Number(given.rank)]

/** One pass of a stage with rows of random tokens: half prompt, a quarter each answer. */
async function work(stage: PlanStage, { model, config }: LocalModel): Promise<void> {
  const random = rng(1, "memory")
  const ids = (n: number) => Array.from({ length: n }, () => random.int(config.vocabSize))
  const row = () => {
    const quarter = Math.floor(length / 4)
    return { prompt: ids(length - 2 * quarter), chosen: ids(quarter), rejected: ids(quarter) }
  }
  if (stage === "load") return
  // A training step of a small model is cut in two parts, which threads compute side by side.
  const plan = planFor(parameterCount(config), workOf(stage))
  const passes = stage.startsWith("train") ? plan.together : 1
  const rows = Array.from({ length: passes * batch }, row)
  if (stage === "generate") {
    const items = rows.map(() => ({ prompt: ids(length - 4), seed: 1, temperature: 1, maxTokens: 4 }))
    await generate(bind(model, { plan }), items, { eosIds: [] })
    return
  }
  if (stage === "weigh") {
    const packed = pack(rows.map(({ prompt, chosen, rejected }) => ({ prompt, responses: [chosen, rejected] })))
    await contrast(bind(model, { plan }), packed, packed)
    return
  }
  const all = (value: number, tokens: readonly number[]) => tokens.map(() => value)
  const items = rows.map(({ prompt, chosen, rejected }) => ({
    ...{ prompt, chosen, rejected, chosenWeights: all(1, chosen), rejectedWeights: all(1, rejected) },
    ...{ chosenReference: all(-3, chosen), rejectedReference: all(-3, rejected) },
  }))
  await train({
    ...{ model, lora: initLora(config, { rank, alpha: 2 * rank, seed: 1 }), batches: { steps: 1, at: () => items } },
    ...{ lr: 1e-4, objective: { kind: "preference", preference: preferenceDefaults }, tokenBudget: batch * length },
    plan,
  })
}

const MiB = 2 ** 20

async function main(): Promise<void> {
  if (given.stage) {
    await useBackend()
    const local = openLocal(dir)
    await work(given.stage as PlanStage, local)
    tf.dispose(local.model.params)
    const kibibytes = Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))![1])
    console.log(Math.round(kibibytes / 1024))
    return
  }
  const { machine } = await useBackend("tensorflow")
  const config = loadConfig(dir)
  const tokenizerBytes = statSync(join(dir, "tokenizer.json")).size
  console.log(
    `${dir}, ${batch} rows of ${length} tokens, rank ${rank}; MiB\nstage                 measured  planned  ratio`,
  )
  for (const stage of planStages) {
    const args = [...process.execArgv, __filename, dir, "--stage", stage]
    const shape = ["--length", `${length}`, "--batch", `${batch}`, "--rank", `${rank}`]
    const measured = Number(execFileSync(process.execPath, [...args, ...shape], { encoding: "utf8" }))
    const planned = planNeed(config, stage, { rank, length, batch, tokenizerBytes }, machine).host / MiB
    const figures = [measured, Math.round(planned)].map((n) => `${n}`.padStart(8)).join(" ")
    console.log(`${stage.padEnd(21)} ${figures}   ${(planned / measured).toFixed(2)}`)
  }
}

main()
