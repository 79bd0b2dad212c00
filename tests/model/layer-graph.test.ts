import { join } from "node:path"
import { beforeAll, describe, expect, it, vi } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { readAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { evenStarts } from "../../lib/model/layer-graph"
import {
  batchInvariantPadding,
  type Packed,
  pack,
  responseLogProbs,
  type Together,
  together,
} from "../../lib/model/logprobs"
import { bind, fromAdapter, release } from "../../lib/model/lora"
import { floatParams } from "../../lib/model/transformer"
import { initModel, loadModel } from "../../lib/model/weights"
import { scoring, training } from "../support/plans"
import { backends, cuda, fixture, largestGap, randomIds, tensorsLeft, tinyConfig } from "../support/tensors"

beforeAll(async () => {
  await useBackend()
})

/** Rows of a prompt and two answers, each a little longer than the one before. */
const batchOf = (rows: number, prompt: number, answer: number) =>
  pack(
    Array.from({ length: rows }, (_, i) => ({
      prompt: randomIds(prompt + i, i, "p"),
      responses: [randomIds(answer + 2 * i, i, "c"), randomIds(answer + 3, i, "r")],
    })),
  )

interface Caller {
  executeMultipleOutputs(op: string, attrs: unknown, inputs: unknown, outputs: number): unknown
}
const watchedCalls = () => vi.spyOn(tf.backend() as unknown as Caller, "executeMultipleOutputs")
/** Calls of graphs among those of all operations. */
const graphCalls = ({ mock }: ReturnType<typeof watchedCalls>) => mock.calls.filter(([op]) => /^MuscGraph/.test(op))

/** Most tensors alive at once, weights not counted, while a model of some layers computes log-probs as a graph. */
function mostTensors(layers: number): number {
  const [rope, window] = [tinyConfig().rope[0]!, null]
  const model = initModel(tinyConfig({ layers, rope: Array(layers).fill(rope), window: Array(layers).fill(window) }), 1)
  const bound = bind(model, { plan: scoring() })
  const before = tf.memory().numTensors
  const engine = tf.engine()
  const track = engine.trackTensor
  let most = 0
  const spy = vi.spyOn(engine, "trackTensor").mockImplementation((tensor, backend) => {
    track.call(engine, tensor, backend)
    most = Math.max(most, tf.memory().numTensors - before)
  })
  tf.tidy(() => responseLogProbs(bound, batchOf(2, 5, 4)))
  spy.mockRestore()
  release(bound)
  tf.dispose(model.params)
  return most
}

describe.runIf(backends[0] === "tensorflow" && !cuda)("layers as graphs", () => {
  it("are watched in memory that does not grow with their number", () => {
    const calls = watchedCalls()
    const [few, many] = [mostTensors(2), mostTensors(14)]
    expect(graphCalls(calls)).toHaveLength(2)
    calls.mockRestore()
    expect(many - few).toBeLessThan(14)
  })

  // gemma3 has norms on queries, keys and behind its blocks, a window of 4 in some layers, GeGLU; qwen2 has biases
  it.each(
    ["llama", "gemma3", "qwen2", "qwen3"].flatMap((name) => [[name, "an adapter"] as const, [name, "all"] as const]),
  )(
    "give %s the log-probs and gradients that it has without, in batches of any size, training %s",
    async (name, trained) => {
      const dir = fixture(name)
      const config = loadConfig(dir)
      const model = loadModel(dir, config)
      const lora = trained === "all" ? null : fromAdapter(readAdapter(join(dir, "adapter"), config))
      const params = lora?.params ?? floatParams(model)
      const sizes = [
        [3, 40, 13],
        [1, 21, 60],
        [4, 1, 9],
        [2, 200, 90],
        [5, 7, 1],
      ] as const
      for (const [rows, prompt, answer] of sizes) {
        const batch = batchOf(rows, prompt, answer)
        const found = (graphs: boolean): Float32Array[] => {
          const adapted = lora && bind(model, { lora, plan: training({ graphs }, { lora: "merged" }) })
          const results = tf.tidy(() => {
            const loss = () => {
              const bound = adapted ?? bind(model, { trainAll: true, plan: training({ adapter: false, graphs }) })
              expect(bound.plan.layers).toBe(graphs ? "graph" : "eager")
              const logProbs = responseLogProbs(bound, batch)
              return tf.sum(tf.mul(logProbs, tf.range(0, logProbs.size))).asScalar()
            }
            const { value, grads } = tf.engine().gradients(loss, Object.values(params))
            return [value, ...grads]
          })
          if (adapted) release(adapted)
          const values = results.map((tensor) => tensor.dataSync() as Float32Array)
          tf.dispose(results)
          return values
        }
        found(true) // makes the graphs
        const runs = watchedCalls()
        const left = await tensorsLeft(async () => {
          const [plain, replayed] = [found(false), found(true)]
          plain.forEach((values, i) => {
            const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
            expect(largestGap(values, replayed[i]!) / largest).toBeLessThan(2e-5)
          })
        })
        expect(left).toBe(0)
        expect(graphCalls(runs).length).toBeGreaterThanOrEqual(2)
        runs.mockRestore()
      }
      tf.dispose([model.params, params])
    },
  )

  it.each(["llama", "gemma3", "qwen2"])("of several batches of %s side by side give what each gives", (name) => {
    const dir = fixture(name)
    const config = loadConfig(dir)
    const model = loadModel(dir, config)
    const lora = fromAdapter(readAdapter(join(dir, "adapter"), config))
    const packs = [batchOf(3, 40, 13), batchOf(2, 70, 30)]
    const found = (batch: Packed | Together, graphs: boolean, trainAll: boolean, recompute = false) => {
      const adapted = trainAll
        ? null
        : bind(model, { lora, plan: training({ graphs, checkpointing: recompute }, { lora: "merged" }) })
      const params = Object.values(trainAll ? floatParams(model) : lora.params)
      const results = tf.tidy(() => {
        const loss = () => {
          const logProbs = responseLogProbs(
            adapted ?? bind(model, { trainAll, plan: training({ adapter: false, graphs, checkpointing: recompute }) }),
            batch,
          )
          return tf.sum(tf.mul(logProbs, tf.cos(tf.range(0, logProbs.size)))).asScalar()
        }
        const { value, grads } = tf.engine().gradients(loss, params)
        const scored = bind(model, { lora, plan: scoring({ graphs }) })
        const untaped = responseLogProbs(scored, batch)
        release(scored)
        return [value, untaped, ...grads]
      })
      if (adapted) release(adapted)
      const values = results.map((tensor) => tensor.dataSync() as Float32Array)
      tf.dispose(results)
      return values
    }
    const whole = together(packs)
    expect(whole.responses).toBe(10)
    expect([...whole.owners.slice(packs[0]!.owners.length)]).toEqual([...packs[1]!.owners].map((owner) => owner + 6))
    for (const trainAll of [false, true]) {
      const plain = found(whole, false, trainAll)
      found(whole, true, trainAll) // makes the graphs
      const runs = watchedCalls()
      const left = tf.memory().numTensors
      const sideBySide = found(whole, true, trainAll)
      expect(tf.memory().numTensors).toBe(left)
      expect(graphCalls(runs)).toHaveLength(3) // forward and backward of all layers, and forward without a gradient
      runs.mockRestore()
      plain.forEach((values, i) => {
        const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
        expect(largestGap(values, sideBySide[i]!) / largest).toBeLessThan(2e-5)
      })
      const recomputed = watchedCalls()
      expect(found(whole, true, trainAll, true)).toEqual(sideBySide) // made again, layer by layer
      const outputs = graphCalls(recomputed).map(([, , , outputs]) => outputs)
      expect(outputs.slice(0, config.layers)).toEqual(Array(config.layers).fill(packs.length)) // and nothing kept beside
      recomputed.mockRestore()
      const [, one, two] = [whole, ...packs].map((batch) => found(batch, false, trainAll)[1]!)
      expect(largestGap(plain[1]!, [...one!, ...two!])).toBeLessThan(2e-5)
    }
    tf.dispose([model.params, lora.params])
  })

  // windows of gemma3 and mistral hide the first tokens of the long rows from the last
  it.each(["llama", "gemma3", "mistral"])(
    "score with %s as without, a row the same to the last bit in any batch",
    (name) => {
      const dir = fixture(name)
      const model = loadModel(dir, loadConfig(dir))
      const plain = bind(model, { plan: scoring({ graphs: false }) })
      const graphs = bind(model, { plan: scoring() })
      const lengths = [
        [40, 13],
        [130, 60],
        [1, 9],
        [250, 3],
      ] as const
      const sequences = lengths.map(([prompt, answer], i) => ({
        prompt: randomIds(prompt, i, "p"),
        responses: [randomIds(answer, i, "c"), randomIds(answer + 3, i, "r")],
      }))
      const scored = (by: typeof plain, some: typeof sequences) =>
        [...tf.tidy(() => responseLogProbs(by, pack(some, batchInvariantPadding())).dataSync())].slice(
          0,
          some.flatMap(({ responses }) => responses.flat()).length,
        )
      const runs = watchedCalls()
      const together = scored(graphs, sequences)
      expect(graphCalls(runs)).toHaveLength(1)
      runs.mockRestore()
      const without = scored(plain, sequences)
      expect(largestGap(together, without)).toBeLessThan(2e-5)
      expect(sequences.flatMap((one) => scored(graphs, [one]))).toEqual(together)
      expect(sequences.flatMap((one) => scored(plain, [one]))).toEqual(without)
      tf.dispose(model.params)
      for (const bound of [plain, graphs]) release(bound)
    },
  )

  it("attend in blocks of which one begins where the first response is predicted", () => {
    const starts = (prompt: number, answer: number) => {
      const batch = batchOf(1, prompt, answer)
      return evenStarts(batch, batch.predictors)
    }
    // 100 + 80 + 83 tokens; the first response is predicted at the 100th
    expect(starts(100, 80)).toEqual([0, 50, 99, 154, 208])
    // one token before the responses is too little for blocks of its own: 1 + 80 + 83 tokens in quarters
    expect(starts(1, 80)).toEqual([0, 41, 82, 123])
    // up to 128 tokens in halves, or one for the prompt and one for all answers: 40 + 30 + 33 and 1 + 40 + 43 tokens
    expect(starts(40, 30)).toEqual([0, 39])
    expect(starts(1, 40)).toEqual([0, 42])
    // from 641 tokens on twice as many
    expect(starts(100, 270)).toHaveLength(10)
  })
})
