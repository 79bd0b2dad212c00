import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Tensor } from "@tensorflow/tfjs-core"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { currentDevice, type Device, setDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import type { ModelConfig } from "../../lib/model/config"
import { type Plan, planFor } from "../../lib/model/executor"
import { generate } from "../../lib/model/generate"
import { contrast, pack, responseLogProbs } from "../../lib/model/logprobs"
import { bind, initLora, type Lora, merge, release } from "../../lib/model/lora"
import { floatParams, type Model } from "../../lib/model/transformer"
import { initModel, loadModel, saveModel, withFloats } from "../../lib/model/weights"
import { type Frozen, isFrozen } from "../../lib/ops/frozen"
import { backends, cuda, largestGap, randomIds, randomValues, tensorsLeft, tinyConfig } from "../support/tensors"

const shapes: [string, Partial<ModelConfig>][] = [
  ["tied", {}],
  ["own head, biases", { tiedHead: false, attentionBias: true, outputBias: true, mlpBias: true }],
  ["norms on queries and keys, logits capped", { qkNorm: true, logitSoftcap: 5, embedScale: 2 }],
  ["a vocabulary in blocks", { vocabSize: 9001 }],
]

/** Packed for our kernels, and as pairs that graphs take apart. */
const cases = (["ours", "none"] as const).flatMap((kernels) =>
  shapes.map(([name, changes]) => [kernels, name, changes] as const),
)
const skipped = !backends.includes("tensorflow") || cuda

describe.skipIf(skipped).each(cases)("a model in bf16, kernels %s: %s", (kernels, _, changes) => {
  const dir = mkdtempSync(join(tmpdir(), "musc-frozen-"))
  const config = tinyConfig(changes)
  let [floats, frozen]: Model[] = []
  let lora: Lora
  let device: Device
  beforeAll(async () => {
    await useBackend("tensorflow")
    device = currentDevice()
    if (kernels === "none") setDevice({ ...device, kernels, products: "library" })
    await saveModel(join(dir, "model.safetensors"), initModel(config, 1, 0.4), "BF16")
    floats = loadModel(dir, config, { asBf16: false })
    frozen = loadModel(dir, config, { asBf16: true })
    lora = initLora(config, { rank: 2, alpha: 4, seed: 3, targets: ["q", "v", "gate", "down"] })
    for (const [name, { shape, size }] of Object.entries(lora.params))
      lora.params[name] = tf.tensor(randomValues(size, 0.2, name), shape)
  })
  afterAll(() => {
    setDevice(device)
    rmSync(dir, { recursive: true })
  })

  const batch = pack(
    [3, 11, 7].map((n, i) => ({
      prompt: randomIds(n, "prompt", i),
      responses: [randomIds(5, i, "a"), randomIds(2, i)],
    })),
  )
  const values = (make: () => Tensor) => tf.tidy(() => make().dataSync() as Float32Array)
  const forms = ["graph", "eager"] as const
  const planOf = (form: Plan["step"]): Plan => {
    const plan = planFor(1e9, { kind: "score" })
    return { ...plan, layers: form, step: kernels === "none" ? "eager" : form }
  }

  it("keeps matrices and tables as bf16, and norms as floats", () => {
    expect(isFrozen(frozen!.params.embed!) && isFrozen(frozen!.params["layers.1.down"]!)).toBe(true)
    expect(isFrozen(frozen!.params["layers.0.norm1"]!)).toBe(false)
    const { packed } = frozen!.params.embed as Frozen
    expect(packed.dtype).toBe(kernels === "none" ? "float32" : "int32")
  })

  it("gives nearly the log-probs of floats", () => {
    const logProbs = (model: Model, plan: Plan) => values(() => responseLogProbs(bind(model, { plan }), batch))
    const expected = logProbs(floats!, planOf("graph"))
    for (const form of forms) expect(largestGap(logProbs(frozen!, planOf(form)), expected)).toBeLessThan(2e-5)
  })

  it("gives the token signals of floats", async () => {
    const other = pack(
      [4, 6, 9].map((n, i) => ({
        prompt: randomIds(n, "other", i),
        responses: [randomIds(5, i, "a"), randomIds(2, i)],
      })),
    )
    const [a, b] = await Promise.all(
      [floats!, frozen!].map((model) => contrast(bind(model, { plan: planOf("graph") }), batch, other)),
    )
    for (const name of Object.keys(a!) as (keyof typeof a)[])
      expect(largestGap(b![name] as Float32Array, a![name] as Float32Array)).toBeLessThan(1e-4)
  })

  it.each(forms)("writes what floats write, with an adapter too (%s)", async (form) => {
    const items = [2, 9, 5, 3, 1].map((n, i) => ({
      ...{ prompt: randomIds(n, "p", i), maxTokens: 12, temperature: i % 2 ? 0.8 : 0, topP: 1, topK: 0, seed: i },
    }))
    const written = async (model: Model, adapter: Lora | null, some = items) => {
      const bound = bind(model, { plan: planOf(form), lora: adapter })
      const rows = await generate(bound, some, { eosIds: [1] })
      release(bound)
      return rows.map(({ ids }) => ids)
    }
    for (const adapter of [null, lora]) {
      const all = await written(frozen!, adapter)
      expect(all).toEqual(await written(floats!, adapter))
      for (const [i, item] of items.entries()) expect(await written(frozen!, adapter, [item])).toEqual([all[i]])
    }
  })

  const ways = (["eager", "graph"] as const).flatMap((layers) =>
    [false, true].map((recompute) => ({ layers, recompute })),
  )
  it.each(ways)("gives the gradients of floats ($layers, recompute $recompute)", (way) => {
    const gradients = (model: Model) =>
      tf.tidy(() => {
        const plan = planFor(1e9, { kind: "train", adapter: true, tokens: 0 })
        const bound = bind(model, { lora, plan: { ...plan, ...way } })
        const loss = () => tf.sum(tf.cos(responseLogProbs(bound, batch))).asScalar()
        const { value, grads } = tf.engine().gradients(loss, Object.values(lora.params))
        return [value, ...grads].map((x: Tensor) => x.dataSync() as Float32Array)
      })
    const expected = gradients(floats!)
    for (const [i, made] of gradients(frozen!).entries()) {
      const largest = Math.max(...expected[i]!.map(Math.abs))
      expect(largestGap(made, expected[i]!)).toBeLessThan(1e-4 * largest + 1e-6)
    }
  })

  it("has the log-probs of an adapter that has learnt nothing, to the last bit", () => {
    const plan = planFor(1e9, { kind: "train", adapter: true, tokens: 1e6 })
    const fresh = initLora(config, { rank: 4, alpha: 8, seed: 1 })
    const logProbs = (given: Parameters<typeof bind>[1]) => values(() => responseLogProbs(bind(frozen!, given), batch))
    expect(logProbs({ lora: fresh, plan: { ...plan, gradient: false } })).toEqual(
      logProbs({ plan: planFor(1e9, { kind: "score" }) }),
    )
  })

  it("is saved and merged as floats are, and trained in all weights only as floats", async () => {
    const again = mkdtempSync(join(dir, "again-"))
    await saveModel(join(again, "model.safetensors"), frozen!, "BF16")
    const loaded = floatParams(loadModel(again, config, { asBf16: false }))
    for (const [name, tensor] of Object.entries(floatParams(floats!)))
      expect(loaded[name]!.dataSync()).toEqual(tensor.dataSync())
    expect(() => floatParams(frozen!)).toThrow(/must be floats.*withFloats/)
    const own = withFloats(frozen!)
    expect(own.params["layers.0.o"]!.dataSync()).toEqual(floatParams(floats!)["layers.0.o"]!.dataSync())
    const [a, b] = [merge(frozen!, lora), merge(floats!, lora)]
    const gate = ({ params }: Model) => values(() => params["layers.1.gate"] as Tensor)
    expect(gate(a)).toEqual(gate(b))
  })

  it("leaves no tensors behind", async () => {
    const left = await tensorsLeft(() => {
      for (const form of forms) release(bind(frozen!, { plan: planOf(form), lora }))
      values(() => responseLogProbs(bind(frozen!, { plan: planOf("eager") }), batch))
      tf.dispose(loadModel(dir, config, { asBf16: true }).params)
    })
    expect(left).toBe(0)
  })
})
