import { beforeAll, describe, expect, it } from "vitest"
import type { Device } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import { loadConfig, parseConfig } from "../../lib/model/config"
import { initLora } from "../../lib/model/lora"
import { type Batch, loraCount, type PlanStage, planNeed, planStages } from "../../lib/model/memory"
import { loadModel, parameterCount } from "../../lib/model/weights"
import { fixture } from "../support/tensors"

beforeAll(async () => {
  await useBackend()
})
const size = (params: Record<string, { size: number }>) =>
  Object.values(params).reduce((sum, { size }) => sum + size, 0)
const MiB = 2 ** 20
const common = { backend: "tensorflow", precision: "f32", threads: 2 } as const
const withAmx: Device = { ...common, gpu: false, kernels: "amx", products: "own", graphs: true }
const cuda: Device = { ...common, gpu: true, kernels: "none", products: "library", graphs: false }

describe("the numbers of parameters", () => {
  it.each(["llama", "llama3-rope", "gemma3", "qwen2", "qwen3", "mistral"])(
    "of %s are those that are loaded",
    (name) => {
      const config = loadConfig(fixture(name))
      const { params } = loadModel(fixture(name), config)
      const lora = initLora(config, { rank: 3, alpha: 6, seed: 1 })
      expect(parameterCount(config)).toBe(size(params))
      expect(loraCount(config, 3)).toBe(size(lora.params))
      tf.dispose([params, lora.params])
    },
  )
})

/** Shapes of the models measured below. */
const llama = { model_type: "llama", tie_word_embeddings: true, rms_norm_eps: 1e-5 }
const shape = (vocab: number, dim: number, ffn: number, layers: number, heads: number, kvHeads: number) => ({
  ...{ vocab_size: vocab, hidden_size: dim, intermediate_size: ffn, num_hidden_layers: layers },
  ...{ num_attention_heads: heads, num_key_value_heads: kvHeads },
})
const gemma = { model_type: "gemma3_text", head_dim: 256, sliding_window: 512, sliding_window_pattern: 6 }
const measured: [string, object, Omit<Batch, "rank">, Record<PlanStage, number>][] = [
  // VmHWM in MiB, by `npx tsx tests/bench/memory.ts`, on two CPU cores, libtensorflow 2.21
  [
    "a Llama of 1.8 M",
    { ...llama, ...shape(1087, 192, 512, 4, 6, 3) },
    { length: 192, batch: 16, tokenizerBytes: 22_123 },
    { load: 467, generate: 452, weigh: 452, train: 586, "train, checkpointed": 468 },
  ],
  [
    "a Llama of 125 M with a head of its own",
    { ...llama, ...shape(32000, 768, 2048, 12, 12, 4), tie_word_embeddings: false },
    { length: 192, batch: 8, tokenizerBytes: 22_123 },
    { load: 806, generate: 1122, weigh: 1028, train: 2190, "train, checkpointed": 1257 },
  ],
  [
    "Gemma 3 270M",
    { ...gemma, ...shape(262144, 640, 2048, 18, 4, 1) },
    { length: 128, batch: 4, tokenizerBytes: 33_371_397 },
    { load: 1615, generate: 1734, weigh: 1769, train: 2132, "train, checkpointed": 1760 },
  ],
]

describe("planned memory", () => {
  const work: Batch = { rank: 8, length: 256, batch: 4, tokenizerBytes: 1e6 }
  const config = parseConfig({ ...llama, ...shape(32000, 768, 2048, 12, 12, 4) })
  const need = (stage: PlanStage, changes: Partial<Batch> = {}) =>
    planNeed(config, stage, { ...work, ...changes }, withAmx).host

  it.each(measured)("of %s is within 15 % of the measured peak, stage by stage", (_, json, shape, peaks) => {
    const config = parseConfig(json)
    for (const stage of planStages) {
      const planned = planNeed(config, stage, { rank: 8, ...shape }, withAmx).host / MiB
      expect(Math.abs(planned / peaks[stage] - 1), `${stage}: ${planned.toFixed(0)} of ${peaks[stage]}`).toBeLessThan(
        0.15,
      )
    }
  })

  it("grows with rows, length and rank, and loading with none of them", () => {
    for (const stage of planStages) {
      const grows = stage === "load" ? 0 : 1
      expect(Math.sign(need(stage, { length: 512 }) - need(stage)), stage).toBe(grows)
      expect(Math.sign(need(stage, { batch: 8 }) - need(stage)), stage).toBe(grows)
    }
    expect(need("train", { rank: 16 })).toBeGreaterThan(need("train"))
  })

  it("of training is less with checkpointing, by most of what the layers keep", () => {
    const kept = (stage: PlanStage) => need(stage, { batch: 16 }) - need(stage)
    expect(kept("train, checkpointed")).toBeLessThan(kept("train") / 3)
  })

  it("puts tensors on the device of a GPU and the program on the host", () => {
    // A CPU trains a small model on two batches at a time.
    const cpu = planNeed(config, "train", { ...work, batch: work.batch / 2 }, { ...withAmx, kernels: "vector" })
    const gpu = planNeed(config, "train", work, cuda)
    expect(cpu.device).toBe(0)
    expect(gpu.device).toBeGreaterThan(4 * parameterCount(config))
    expect(gpu.host).toBeLessThan(cpu.host)
    // What the CPU's own kernels do not keep, a GPU does.
    expect(gpu.host + gpu.device).toBeGreaterThan(cpu.host + 64 * MiB)
    const [loaded, onGpu] = [false, true].map((on) => planNeed(config, "load", work, on ? cuda : withAmx))
    expect(onGpu!.host + onGpu!.device).toBeCloseTo(loaded!.host + 64 * MiB, -3)
  })
})
