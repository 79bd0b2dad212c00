/** A step's loss and gradient, and a large attention's digits, by the kernels of this process: one JSON line. */
import { createHash } from "node:crypto"
import { join } from "node:path"
import type { Tensor, Tensor2D } from "@tensorflow/tfjs-core"
import { currentDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import { loadConfig } from "../../lib/model/config"
import { contexts } from "../../lib/model/context"
import { initLora } from "../../lib/model/lora"
import { loadModel } from "../../lib/model/weights"
import { type AttentionInputs, fusedAttention } from "../../lib/ops/attention"
import { gated } from "../../lib/ops/gated"
import { kernel } from "../../lib/ops/kernel"
import { loraGradient, lowRankProduct } from "../../lib/ops/linear"
import { matMul } from "../../lib/ops/matmul"
import { rmsNorm } from "../../lib/ops/norm"
import { rng } from "../../lib/rng"
import { bound, shareOf } from "../../lib/train/gradients"
import { training } from "./plans"

const folder = join(__dirname, "../fixtures/models/llama")

const numbers = (rows: number, columns: number, key: string) => {
  const random = rng(3, key)
  return tf.tensor2d(
    Float32Array.from({ length: rows * columns }, () => 2 * random.next() - 1),
    [rows, columns],
  )
}

/** Of what is large enough to be shared by threads. */
function digits(): string {
  const { kernels } = currentDevice()
  if (kernels === "none") return ""
  const [B, T, N, K, H] = [2, 300, 4, 1, 64]
  const config = { ...loadConfig(folder), heads: N, kvHeads: K, headDim: H, queryScale: 0.125 }
  const positions = Int32Array.from({ length: B * T }, (_, i) => i % T)
  const places = { rows: B, length: T, positions, segments: new Int32Array(B * T) }
  const attention = contexts(config, places)[0]!.attention as AttentionInputs
  const [qk, v] = [numbers(B * T, (N + K) * H, "qk"), numbers(B * T, K * H, "v")]
  const attend = (a: Tensor2D, b: Tensor2D) => fusedAttention(a, b, attention, [N, K])
  const wide = numbers(B * T, 1024, "wide")
  const scaled = { A: numbers(1024, 16, "A"), B: numbers(16, 1024, "B") }
  const made = [
    attend(qk, v),
    ...tf.grads((a, b) => attend(a as Tensor2D, b as Tensor2D))([qk, v], numbers(B * T, N * H, "dy")),
    ...loraGradient(wide, wide, scaled, 0),
    matMul(wide, wide, true),
    kernel("MuscNorm", [0], [tf.reshape(wide, [-1])]),
    ...(kernels === "amx" ? lowRankProduct(wide, matMul(wide, wide, true), scaled.A, scaled.B, false) : []),
    ...tf.grads((a, b) => gated(a as Tensor2D, b as Tensor2D, "gelu_tanh"))([wide, wide.clone()]),
    ...tf.grads((a, b) => rmsNorm(a, b, 1e-5, true))([wide, tf.ones([1024])]),
  ]
  return hashOf(made)
}

function hashOf(tensors: readonly Tensor[]): string {
  const hash = createHash("sha256")
  for (const tensor of tensors) hash.update(new Uint8Array((tensor.dataSync() as Float32Array).buffer))
  return hash.digest("hex")
}

async function main() {
  await useBackend("tensorflow")
  const model = loadModel(folder, loadConfig(folder))
  const lora = initLora(model.config, { rank: 4, alpha: 8, seed: 2 })
  for (const [name, tensor] of Object.entries(lora.params)) {
    if (name.endsWith(".B")) lora.params[name] = numbers(tensor.shape[0]!, tensor.shape[1]!, name)
  }
  const random = rng(9, "ids")
  const ids = (n: number) => Array.from({ length: n }, () => random.int(model.config.vocabSize))
  const items = [33, 5, 17].map((n) => ({ prompt: ids(n), responses: [ids(12), ids(20)] }))
  const learner = { model, lora, objective: { kind: "sft", weighting: "even" } as const }
  const { loss, gradient } = await shareOf(learner, bound(learner), [items], items.length)
  const norm = tf.norm(gradient).dataSync()[0]
  const byGraphs = { ...learner, plan: training({ graphs: true }) }
  const together = await shareOf(byGraphs, bound(byGraphs), [items.slice(0, 1), items.slice(1)], items.length)
  const sideBySide = { loss: together.loss, gradient: hashOf([together.gradient]) }
  console.log(JSON.stringify({ present: currentDevice().kernels !== "none", loss, norm, digits: digits(), sideBySide }))
}

main()
