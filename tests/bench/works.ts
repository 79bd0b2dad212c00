import type { Maths } from "../../lib/device/device"
import type { ModelConfig } from "../../lib/model/config"
import { type LoraTarget, loraTargets, targetShape } from "../../lib/model/lora"
import type { Job } from "./jobs"

/** Something to be timed: ours against a peer's script. */
export interface Work {
  name: string
  title: string
  unit: "pairs/s" | "tokens/s" | "rows/s"
  job: Pick<Job, "work"> & Partial<Job>
  /** the peer's script, whose fastest variant counts; the Python package that it needs beside those of all peers */
  peer?: { script: string; variants: Partial<Job>[]; needs?: string }
  /** ours, whatever the whole bench is run with: where the peer cannot do otherwise */
  math?: Maths
  /** least ratio to the peer that we want */
  target?: number
  /** most memory that we want, as a share of the peer's */
  memoryTarget?: number
}

/** What we want, by row, on a processor without AMX. */
type Targets = Readonly<Record<string, number>> & { memory: number }
const embeddedTargets: Targets = {
  ...{ dpo: 3, "step-lora": 1.3, "step-all": 1.2, signals: 3, "generate-16": 2.5, "generate-64": 2.2 },
  ...{ wasm: 0.4, memory: 0.5 },
}
const largeTargets: Targets = {
  ...{ dpo: 3.5, "step-lora": 1.25, "step-all": 1.15, signals: 3, "generate-16": 2, "generate-64": 2 },
  ...{ "llama.cpp-1": 1, "llama.cpp-16": 2, decompose: 3, memory: 0.4 },
}
/** A large vocabulary weighs on the peers. */
const gemmaTargets: Targets = {
  ...{ dpo: 4.5, "step-lora": 1.3, "step-all": 1.3, signals: 3, "generate-16": 1.5, "generate-64": 2, memory: 0.45 },
}

export function targetsOf(config: ModelConfig): Targets {
  if (!large(config)) return embeddedTargets
  return config.family === "gemma3_text" ? gemmaTargets : largeTargets
}

/** Parameters above which a model counts as large, and gets fewer and shorter rows. */
export const large = (config: ModelConfig) => sizeOf(config) > 100e6
const sizeOf = (config: ModelConfig) => matrixSize(config) + config.vocabSize * config.dim

const projections = Object.keys(loraTargets) as LoraTarget[]
const matrixSize = (config: ModelConfig) =>
  config.layers * projections.reduce((n, target) => n + targetShape(config, target).reduce((a, b) => a * b), 0)

/** All works for a model, sized so that each takes seconds on two cores, or on a GPU. */
export function worksFor(config: ModelConfig, adapter: string, threads: number, device: Job["device"]): Work[] {
  const cuda = device === "cuda"
  const big = large(config) && !cuda
  const huge = big && sizeOf(config) > 200e6
  const small = cuda ? { batch: 8, length: 512, warmup: 2, steps: 8 } : { batch: 16, length: 128, warmup: 4, steps: 16 }
  const step = big ? { batch: 4, length: 64, warmup: 5, steps: 3 } : small
  const tokens = big ? 16 : 64
  const peer = (script: string, ...variants: Partial<Job>[]) => ({
    script,
    variants: variants.length ? variants : [{}],
  })
  const generation = (batch: number): Work => ({
    name: `generate-${batch}`,
    title: `generate ${tokens} tokens, batch ${batch}`,
    unit: "tokens/s",
    // One generation of a small model takes a tenth of a second, and its rate changes from one to the next.
    job: { work: "generate", batch, count: batch, tokens, generations: big ? 1 : 8 },
    peer: peer("generate.py"),
  })
  // Where users of a CPU would otherwise go: the same weights as bf16, in the Llama family that every version of it
  // knows.
  const llamaCpp = (batch: number): Work => ({
    name: `llama.cpp-${batch}`,
    title: `generate 32 tokens, batch ${batch}, against llama.cpp, both in bf16`,
    unit: "tokens/s",
    math: "bf16",
    // One takes half a second, within which the speed of a shared processor changes.
    job: { work: "generate", batch, count: batch, tokens: 32, generations: 8 },
    peer: { ...peer("llama.py"), needs: "llama_cpp_python" },
  })
  const dpo: Work = {
    name: "dpo",
    title: "DPO, LoRA on all linear layers",
    unit: "pairs/s",
    job: {
      work: "dpo",
      adapter,
      batch: big ? 4 : 8,
      count: huge ? 8 : big ? 24 : cuda ? 256 : 2048,
      lr: big ? 1e-4 : 1e-3,
      beta: 0.1,
    },
    peer: peer("dpo.py", { precompute: false }, { precompute: true }),
  }
  // Where activations are much of the memory: ours computes them twice, the peer does as it does best.
  const lean: Work = {
    ...dpo,
    name: "dpo-lean",
    title: `${dpo.title}, with gradient checkpointing`,
    job: { ...dpo.job, gradientCheckpointing: true },
  }
  const works: Work[] = [
    dpo,
    ...(big ? [lean] : []),
    {
      name: "step-lora",
      title: `train step ${step.batch} x ${step.length}, LoRA`,
      unit: "tokens/s",
      job: { work: "step", adapter, ...step },
      peer: peer("step.py"),
    },
    {
      name: "step-all",
      title: `train step ${step.batch} x ${step.length}, all weights`,
      unit: "tokens/s",
      job: { work: "step", ...step },
      peer: peer("step.py"),
    },
    {
      name: "signals",
      title: "token signals of a pair under 3 prompts",
      unit: "pairs/s",
      job: { work: "signals", count: big ? 6 : 1024, batch: big ? 2 : 8 },
      peer: peer("signals.py"),
    },
    generation(16),
    generation(64),
    ...(big && config.family === "llama" ? [llamaCpp(1), llamaCpp(16)] : []),
    {
      name: "step-512",
      title: `train step ${big ? 1 : 4} x 512, LoRA`,
      unit: "tokens/s",
      job: { work: "step", adapter, batch: big ? 1 : 4, length: 512, warmup: 3, steps: big ? 2 : 8 },
      peer: peer("step.py"),
    },
  ]
  if (!big && !cuda) {
    const wasm: Work = {
      name: "wasm",
      title: "train step 8 x 128, LoRA, wasm in a process a core against one PyTorch thread",
      unit: "tokens/s",
      job: { work: "step", backend: "wasm", adapter, batch: 8, length: 128, warmup: 10, steps: 10, threads: 1 },
      peer: peer("step.py"),
    }
    const one = { ...wasm, name: "wasm-one", title: "the same in one process" }
    works.push(wasm, { ...one, job: { ...wasm.job, workers: 1 } })
  }
  const targets = cuda ? undefined : targetsOf(config)
  return works.map((work) => ({
    ...{ ...work, target: targets?.[work.name], job: { threads, ...work.job } },
    memoryTarget: work.name === "dpo" ? targets?.memory : undefined,
  }))
}

/**
 * Floating-point operations of a LoRA step in which every position is a target, counted by the products that cannot be
 * avoided: forward and dx through all matrices, scores and values of attention (all pairs of positions, forward and
 * twice backward), logits and their gradient, the small products of the adapter.
 */
export function loraStepOperations(config: ModelConfig, rank: number, rows: number, length: number): number {
  const tokens = rows * length
  const matrices = 2 * 2 * tokens * matrixSize(config)
  const attention = 3 * 2 * 2 * tokens * length * config.heads * config.headDim * config.layers
  const head = 2 * 2 * tokens * config.dim * config.vocabSize
  const adapter = projections.reduce((sum, target) => {
    const [inputs, outputs] = targetShape(config, target)
    return sum + 2 * tokens * rank * 2 * (inputs + outputs) * config.layers
  }, 0)
  return matrices + attention + head + adapter
}
