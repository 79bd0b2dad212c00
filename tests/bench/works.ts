import type { ModelConfig } from "../../lib/model/config"
import { type LoraTarget, loraTargets, targetShape } from "../../lib/model/lora"
import type { Job } from "./jobs"

/** Something to be timed: ours against a peer's script, of whose variants the fastest counts. */
export interface Work {
  name: string
  title: string
  unit: "pairs/s" | "tokens/s"
  job: Pick<Job, "work"> & Partial<Job>
  peer?: { script: string; variants: Partial<Job>[] }
  /** least ratio to the peer that we want */
  target?: number
}

/** Parameters above which a model counts as large, and gets fewer and shorter rows. */
export const large = (config: ModelConfig) => matrixSize(config) + config.vocabSize * config.dim > 100e6

const projections = Object.keys(loraTargets) as LoraTarget[]
const matrixSize = (config: ModelConfig) =>
  config.layers * projections.reduce((n, target) => n + targetShape(config, target).reduce((a, b) => a * b), 0)

/** All works for a model, sized so that each takes seconds on two cores, or on a GPU. */
export function worksFor(config: ModelConfig, adapter: string, threads: number, device: Job["device"]): Work[] {
  const cuda = device === "cuda"
  const big = large(config) && !cuda
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
    job: { work: "generate", batch, count: batch, tokens },
    peer: peer("generate.py"),
    target: big ? 1.2 : 2,
  })
  const dpo: Work = {
    name: "dpo",
    title: "DPO, LoRA on all linear layers",
    unit: "pairs/s",
    job: {
      work: "dpo",
      adapter,
      batch: big ? 4 : 8,
      count: big ? 48 : cuda ? 256 : 2048,
      lr: big ? 1e-4 : 1e-3,
      beta: 0.1,
    },
    peer: peer("dpo.py", { precompute: false }, { precompute: true }),
    target: big ? 5 : 3,
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
      target: 1.2,
    },
    {
      name: "step-all",
      title: `train step ${step.batch} x ${step.length}, all weights`,
      unit: "tokens/s",
      job: { work: "step", ...step },
      peer: peer("step.py"),
      target: 1.2,
    },
    {
      name: "signals",
      title: "token signals of a pair under 3 prompts",
      unit: "pairs/s",
      job: { work: "signals", count: big ? 6 : 1024, batch: big ? 2 : 8 },
      peer: peer("signals.py"),
      target: 3,
    },
    generation(16),
    generation(64),
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
      target: 0.4,
    }
    const one = { ...wasm, name: "wasm-one", title: "the same in one process", target: undefined }
    works.push(wasm, { ...one, job: { ...wasm.job, workers: 1 } })
  }
  return works.map((work) => ({ ...work, job: { threads, ...work.job } }))
}

/**
 * Floating-point operations of a LoRA step in which every position is a target, counted by the products that cannot be
 * avoided: forward and dx through all matrices, scores and values of attention (all pairs of positions, forward and twice
 * backward), logits and their gradient, the small products of the adapter.
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
