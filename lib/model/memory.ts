import type { BackendName, Device } from "../device/device"
import { blocksOn } from "../ops/head"
import type { ModelConfig } from "./config"
import { keepsBf16, plan, type Work } from "./executor"
import { type LoraTarget, loraTargets, targetShape } from "./lora"
import { parameterCount } from "./weights"

/**
 * How much memory work with a model takes, estimated from the shapes of the tensors that live at its worst moment.
 * Letters as in transformer.ts; all counts are of f32 values unless they say bytes, checkpoints are taken to be of
 * bf16.
 */

export interface Batch {
  /** rank of the LoRA on all linear layers */
  rank: number
  /** T: tokens of a row, prompt and answers together, half of them answers */
  length: number
  /** B: rows in one pass */
  batch: number
  /** bytes of tokenizer.json, whose tables stay on the host */
  tokenizerBytes: number
}

/** Work that `planNeed` estimates memory for. */
export const planStages = ["load", "generate", "weigh", "train", "train, checkpointed"] as const
export type PlanStage = (typeof planStages)[number]

/** Peak bytes of a stage. */
export interface Need {
  /** of the process, all tensors included where the backend keeps them on the host */
  host: number
  /** of a GPU, for the backends that have one */
  device: number
}

/** Values of every linear layer of one block. */
const linearCount = (config: ModelConfig) =>
  targets.reduce((sum, target) => sum + product(targetShape(config, target)), 0)
const targets = Object.keys(loraTargets) as LoraTarget[]
const product = ([a, b]: readonly number[]) => a! * b!

/** Values of a LoRA on all linear layers. */
export const loraCount = (config: ModelConfig, rank: number): number =>
  config.layers * targets.reduce((sum, target) => sum + rank * targetShape(config, target).reduce((a, b) => a + b), 0)

/** Rotary tables and masks: one of each for every kind of layer; places instead of masks for our own kernels. */
function tables(config: ModelConfig, tokens: number, keys: number, fused: boolean): number {
  const { rope, window, heads: N, kvHeads: K, headDim: H } = config
  const kinds = new Set(rope.map((one, i) => JSON.stringify([one, window[i]]))).size
  return kinds * tokens * (fused ? H + 4 : 2 * (N + K) * H + keys)
}

/** A block without a gradient: what it has made when it is at its largest, in attention or in the mlp. */
function blockPeak(config: ModelConfig, tokens: number, keys: number, fused: boolean): number {
  const { dim: D, heads: N, kvHeads: K, headDim: H, ffn: F, qkNorm, postNorms, activation } = config
  const projected = (qkNorm ? 4 : 3) * (N + K) * H + 2 * K * H // made, turned, normed, rotated; values
  const attention = 2 * D + projected + (N + K) * H + 3 * N * keys
  const mlp = (postNorms ? 8 : 6) * D + projected + 2 * N * H + (activation === "silu" ? 5 : 9) * F
  if (fused) return tokens * ((postNorms ? 8 : 6) * D + projected + N * H + 3 * F)
  return tokens * Math.max(attention, mlp)
}

/** Keys that a query of a row looks at, on average: all up to the end of its block of 128 or more. */
const seenKeys = (T: number) => Math.min(T, (T + 128) / 2)

/** What a block keeps for its gradient. */
function blockSaved(config: ModelConfig, tokens: number, keys: number, fused: boolean): number {
  const { dim: D, heads: N, kvHeads: K, headDim: H, ffn: F, qkNorm, postNorms } = config
  // Norms keep their input, attention no scores, gates what they are made of; what norms and gates make is made again.
  if (fused) return tokens * ((postNorms ? 6 : 4) * D + (qkNorm ? 2 : 1) * (N + K) * H + (N + K) * H + 2 * F)
  // Norms keep their unit vectors, the matrices their input, and tfjs' sums both of their terms.
  const norms = (postNorms ? 10 : 8) * D + (qkNorm ? (N + K) * H : 0)
  const attention = 3 * N * H + 2 * K * H + N * keys
  return tokens * (norms + attention + 4 * F)
}

/** The backward pass of a block beside what was saved. */
function blockBackward(config: ModelConfig, tokens: number, keys: number, fused: boolean): number {
  const { dim: D, heads: N, kvHeads: K, headDim: H, ffn: F } = config
  if (fused) return tokens * (5 * D + Math.max(4 * F, 3 * (N + K) * H))
  return tokens * Math.max(2 * D + 6 * F, 3 * D + 4 * (N + K) * H + 4 * N * keys)
}

/** Peak values of the tensors of a stage, weights included. */
function tensorPeak(
  config: ModelConfig,
  stage: PlanStage,
  { rank, length: T, batch: B }: Batch,
  device: Device,
): number {
  const { gpu } = device
  const fused = device.kernels !== "none"
  const { dim: D, layers: L, kvHeads: K, headDim: H, vocabSize: V } = config
  const parameters = parameterCount(config)
  const asBf16 = keepsBf16(device, parameters)
  const inTables = (config.tiedHead ? 1 : 2) * V * D
  const weights = parameters - (asBf16 ? (L * linearCount(config) + inTables) / 2 : 0)
  const { together, lora: placed, recompute, frozen, xla } = plan(device, parameters, workOf(stage))
  const tokens = (stage.startsWith("train") ? together : 1) * B * T
  if (stage === "load") return weights + (asBf16 ? V * D : 0) // a table is read as floats
  // The output of every layer stays until the whole pass is done.
  const forward = tables(config, tokens, T, fused) + L * tokens * D
  const block = blockPeak(config, tokens, T, fused)
  if (stage === "generate") {
    const keys = 2 * L * B * K * (T + 64) * H
    return weights + keys + forward + block + B * V
  }
  if (stage === "weigh") {
    const { entries, rows } = blocksOn(V, gpu)
    // Of a block of entries: logits, those less their maximum and odds under both prompts, four products.
    return weights + Math.max(2 * forward + block, 2 * tokens * D + 10 * Math.min(rows, tokens / 2) * entries)
  }
  const lora = loraCount(config, rank)
  const effective = placed === "separate" || frozen ? 0 : L * linearCount(config)
  const chunk = Math.max(64, Math.floor(2 ** (gpu ? 26 : 24) / V))
  const head = 3 * Math.min(chunk, tokens / 2) * V
  const keys = xla ? T : seenKeys(T)
  const saved = blockSaved(config, tokens, keys, fused)
  // The last layer continues after attention with the tokens that predict answers alone.
  const activations = recompute ? L * tokens * D + saved : (L - 0.5) * saved
  // Without kernels of ours a bf16 matrix becomes floats for each product in f32.
  const widened = frozen && !fused && device.precision === "f32" ? D * config.ffn : 0
  const work = Math.max(head, widened + blockBackward(config, tokens, keys, fused))
  return weights + effective + 5 * lora + tables(config, tokens, T, fused) + activations + work
}

const MiB = 2 ** 20

/**
 * Bytes of a process of each backend before any model, measured on Linux (webgpu: assumed). On top come tables of the
 * tokenizer (6 bytes a byte of its file) and some MiB of values on their way.
 */
const runtime: Record<BackendName, number> = {
  tensorflow: 275 * MiB,
  webgpu: 300 * MiB,
  wasm: 160 * MiB,
  cpu: 120 * MiB,
}

/** What TensorFlow takes while it is being loaded, most of which it gives back: see native/kernels/load.cc. */
const starting = 460 * MiB

/** Rows and columns packed for the tiles of AMX, and the holes that they leave in the heap; measured. */
const packed = 48 * MiB

/** What a stage does, as the executor knows it; a training is taken to be long. */
export function workOf(stage: PlanStage): Work {
  if (stage === "load" || stage === "generate") return { kind: "generate" }
  if (stage === "weigh") return { kind: "score" }
  return { kind: "train", adapter: true, tokens: Infinity, checkpointing: stage === "train, checkpointed" }
}

/**
 * Peak memory of a stage on a device. On a GPU tensors live there, and the host has the program and the largest tensor
 * on its way. Within 15 % of the measured peak on the native backend's CPU; an estimate elsewhere.
 */
export function planNeed(config: ModelConfig, stage: PlanStage, work: Batch, device: Device): Need {
  const { backend, gpu, kernels } = device
  const tensors = 4 * tensorPeak(config, stage, work, device) + (kernels === "amx" && stage !== "load" ? packed : 0)
  const program = runtime[backend] + 6 * work.tokenizerBytes + 40 * MiB
  const embedding = 4 * config.vocabSize * config.dim
  if (gpu) return { host: program + (backend === "tensorflow" ? 64 * MiB : embedding), device: tensors }
  // Elsewhere a tensor comes over as a whole, so the largest stands twice for a moment.
  if (backend === "tensorflow") return { host: Math.max(starting, program + tensors), device: 0 }
  return { host: program + tensors + embedding, device: 0 }
}
