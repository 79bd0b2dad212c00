import { join } from "node:path"
import { expect } from "vitest"
import { type BackendName, tf } from "../../lib/device/tf"
import type { ModelConfig } from "../../lib/model/config"
import { nativeBuild } from "../../lib/native/build"
import { rng } from "../../lib/rng"

const native = nativeBuild() && (process.env.MUSC_BACKEND ?? "tensorflow") === "tensorflow"

/** The backends that every machine with these packages has; the native one where it is built and no other is forced. */
export const backends: BackendName[] = native ? ["tensorflow", "wasm", "cpu"] : ["wasm", "cpu"]

/** Whether the native backend computes on a GPU: the last digits of a sum then depend on what is added beside it. */
export const cuda = nativeBuild()?.device === "cuda"

export const fixture = (name: string) => join(__dirname, "../fixtures/models", name)

/** A Llama of 2 layers, 32 wide, over 40 tokens; grouped queries, tied head. */
export function tinyConfig(changes: Partial<ModelConfig> = {}): ModelConfig {
  const plain = { theta: 10000, scaling: { type: "none" as const } }
  return {
    family: "llama",
    vocabSize: 40,
    dim: 32,
    layers: 2,
    heads: 4,
    kvHeads: 2,
    headDim: 8,
    ffn: 48,
    normEps: 1e-5,
    normOffset: 0,
    tiedHead: true,
    attentionBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    activation: "silu",
    embedScale: 1,
    queryScale: 8 ** -0.5,
    postNorms: false,
    rope: [plain, plain],
    window: [null, null],
    logitSoftcap: null,
    maxPositions: 256,
    eosIds: [1],
    bosId: null,
    padId: 0,
    ...changes,
  }
}

/** Ids at random, of tokens 2 … 39. */
export const randomIds = (n: number, ...stream: (string | number)[]): number[] => {
  const random = rng("ids", ...stream)
  return Array.from({ length: n }, () => 2 + random.int(38))
}

/** Numbers uniform in ±scale. */
export const randomValues = (n: number, scale: number, ...stream: (string | number)[]): Float32Array => {
  const random = rng("values", ...stream)
  return Float32Array.from({ length: n }, () => (2 * random.next() - 1) * scale)
}

/** Largest difference of two lists of the same length. */
export function largestGap(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length)
  let gap = 0
  for (let i = 0; i < a.length; i++) gap = Math.max(gap, Math.abs(a[i]! - b[i]!))
  // NaN never compares, so it is looked for.
  expect([...Array.from(a), ...Array.from(b)].every(Number.isFinite)).toBe(true)
  return gap
}

/** Tensors that `work` leaves behind. */
export async function tensorsLeft(work: () => unknown): Promise<number> {
  const before = tf.memory().numTensors
  await work()
  return tf.memory().numTensors - before
}
