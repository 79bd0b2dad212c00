import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, test } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { loadConfig } from "../../lib/model/config"
import { floatParams } from "../../lib/model/transformer"
import { loadModel, parameterCount } from "../../lib/model/weights"
import { loadTokenizer } from "../../lib/text/tokenizer"
import { shapeNames, shapeOf, writeShape } from "./shapes"

const dir = mkdtempSync(join(tmpdir(), "musc-shapes-"))
beforeAll(() => useBackend())
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/** Millions of weights that the models' cards name, embeddings counted once. */
const published: Record<string, number> = {
  "smollm2-135m": 134.5,
  "qwen2.5-0.5b": 494.0,
  "gemma-3-270m": 268.1,
  "llama-1b": 1235.8,
}

test.each(shapeNames)("the shape of %s has as many weights as the published model", (name) => {
  expect(parameterCount(shapeOf(name)) / 1e6).toBeCloseTo(published[name]!, 1)
})

test.each(shapeNames)(
  "a small checkpoint of the family of %s loads with all its tensors, bf16 values of spread .02",
  async (name) => {
    const folder = join(dir, name)
    mkdirSync(folder)
    const small = { vocab_size: 3000, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, head_dim: 16 }
    await writeShape(folder, name, { ...small, num_attention_heads: 4, num_key_value_heads: 2, layer_types: undefined })
    const model = loadModel(folder, loadConfig(folder))
    const { config } = model
    const params = floatParams(model)
    const values = params.embed!.dataSync() as Float32Array
    const spread = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length)
    expect(spread).toBeCloseTo(0.02, 3)
    expect(new Uint32Array(values.slice(0, 1000).buffer).every((word) => (word & 0xffff) === 0)).toBe(true)
    expect(loadTokenizer(folder).vocabSize).toBe(config.vocabSize)
    tf.dispose(params)
  },
)
