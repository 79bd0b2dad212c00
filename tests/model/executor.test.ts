import { describe, expect, it } from "vitest"
import type { Device } from "../../lib/device/device"
import { describePlan, keepsBf16, type Plan, plan, type Work } from "../../lib/model/executor"

const cpu: Device = {
  ...{ backend: "tensorflow", gpu: false, kernels: "vector", products: "own", graphs: true },
  ...{ precision: "f32", threads: 2 },
}
const devices = {
  "a CPU with AMX": { ...cpu, kernels: "amx" },
  "a CPU": cpu,
  "a CPU without kernels": { ...cpu, kernels: "none" },
  CUDA: { ...cpu, gpu: true, kernels: "none", graphs: false },
  "CUDA with functions": { ...cpu, gpu: true, kernels: "none" },
  "CUDA with XLA": { ...cpu, gpu: true, kernels: "none", xla: true },
  wasm: { ...cpu, backend: "wasm", kernels: "none", graphs: false, threads: 1 },
} satisfies Record<string, Device>

const works = {
  write: { kind: "generate" },
  score: { kind: "score" },
  "a short training": { kind: "train", adapter: true, tokens: 1000 },
  "a long training": { kind: "train", adapter: true, tokens: 1e7 },
  "a long training of all weights": { kind: "train", adapter: false, tokens: 1e7 },
  "a long training, checkpointed": { kind: "train", adapter: true, tokens: 1e7, checkpointing: true },
} satisfies Record<string, Work>

const sizes = { small: 1.8e6, large: 1e9 }

/** layers, decoding step, micro-batches of a step, batches side by side, LoRA, no padding, matrices in bf16, XLA */
type Line = [
  device: keyof typeof devices,
  size: keyof typeof sizes,
  work: keyof typeof works,
  Plan["layers"],
  Plan["step"],
  1 | 2,
  1 | 2,
  Plan["lora"],
  Plan["paddingFree"],
  Plan["frozen"]?,
  Plan["xla"]?,
]

const table: Line[] = [
  ["a CPU with AMX", "small", "write", "graph", "graph", 2, 2, "merged", true],
  ["a CPU with AMX", "small", "a short training", "eager", "graph", 2, 1, "separate", false],
  ["a CPU with AMX", "small", "a long training", "graph", "graph", 2, 2, "separate", false],
  ["a CPU with AMX", "small", "a long training of all weights", "graph", "graph", 2, 2, "merged", false],
  ["a CPU with AMX", "small", "a long training, checkpointed", "graph", "graph", 2, 2, "separate", false],
  ["a CPU with AMX", "large", "a short training", "graph", "graph", 1, 1, "separate", true], // 1e9 · 1000 is worth a second
  ["a CPU with AMX", "large", "a long training", "graph", "graph", 1, 1, "separate", true],
  ["a CPU", "small", "write", "graph", "graph", 2, 2, "merged", true],
  ["a CPU", "small", "a short training", "eager", "graph", 2, 1, "merged", false],
  ["a CPU", "small", "a long training", "graph", "graph", 2, 2, "merged", false],
  ["a CPU", "large", "a long training", "graph", "graph", 1, 1, "merged", true, true],
  ["a CPU", "large", "write", "graph", "graph", 1, 1, "merged", true, true],
  ["a CPU with AMX", "large", "write", "graph", "graph", 1, 1, "merged", true, false], // tiles have a packing of their own
  ["a CPU without kernels", "small", "write", "graph", "eager", 2, 2, "merged", false],
  ["a CPU without kernels", "small", "a long training", "graph", "eager", 2, 2, "merged", false],
  ["CUDA", "small", "write", "eager", "eager", 1, 1, "merged", false],
  ["CUDA", "large", "a long training", "eager", "eager", 1, 1, "merged", false],
  ["CUDA with functions", "small", "a long training", "graph", "eager", 1, 1, "merged", false, false],
  ["CUDA with functions", "large", "a long training", "graph", "eager", 1, 1, "merged", false, true],
  ["CUDA with functions", "large", "a long training of all weights", "graph", "eager", 1, 1, "merged", false, false],
  ["CUDA with functions", "large", "write", "graph", "eager", 1, 1, "merged", false, true],
  ["CUDA with XLA", "large", "a long training", "graph", "eager", 1, 1, "merged", false, true, true],
  ["CUDA with XLA", "large", "score", "graph", "eager", 1, 1, "merged", false, true, true],
  ["CUDA with XLA", "large", "write", "graph", "eager", 1, 1, "merged", false, true], // prompts have all lengths
  ["CUDA with XLA", "small", "a short training", "eager", "eager", 1, 1, "merged", false],
  ["wasm", "small", "write", "eager", "eager", 2, 1, "merged", false],
  ["wasm", "small", "a long training", "eager", "eager", 2, 1, "merged", false],
]

describe("a plan", () => {
  it.each(table)(
    "on %s, of a %s model, for %s: layers %s, step %s, %s micro-batches, %s together, LoRA %s, without padding %s",
    (...line) => {
      const [device, size, work, layers, step, microBatches, together, lora, paddingFree, frozen = false, xla] = line
      const wanted: Work = works[work]
      const made = plan(devices[device], sizes[size], wanted)
      expect(made).toEqual({
        ...{ layers, step, microBatches, together, lora, paddingFree, frozen },
        prompts: device === "a CPU" ? "graph" : "layers",
        ...{ precision: "f32", threads: devices[device].threads, ...(xla && { xla }) },
        gradient: wanted.kind === "train",
        recompute: wanted.kind === "train" && (wanted.checkpointing ?? false),
      })
    },
  )

  it("cuts a step alike for short and long trainings, so that sums do not depend on their length", () => {
    for (const device of Object.values(devices))
      for (const size of Object.values(sizes)) {
        const of = (work: Work) => plan(device, size, work).microBatches
        expect(of(works["a short training"])).toBe(of(works["a long training"]))
      }
  })

  it("keeps matrices as bf16 where weights come from memory and kernels or graphs can read them", () => {
    expect(keepsBf16(devices["a CPU"], sizes.large)).toBe(true)
    expect(keepsBf16(devices["a CPU"], sizes.small)).toBe(false)
    expect(keepsBf16(devices["CUDA with functions"], sizes.large)).toBe(true)
    for (const name of ["a CPU with AMX", "a CPU without kernels", "CUDA", "wasm"] as const)
      expect(keepsBf16(devices[name], sizes.large)).toBe(false)
    const trained = ([true, false] as const).map((adapter) => plan(cpu, sizes.large, { kind: "train", adapter }))
    expect(trained.map(({ frozen }) => frozen)).toEqual([true, false])
  })

  it("is said in words", () => {
    expect(describePlan(plan(devices["a CPU with AMX"], 1.8e6, works["a long training, checkpointed"]))).toBe(
      "layers by graph, two batches side by side, each layer computed again for its gradient, LoRA applied separately",
    )
    expect(describePlan(plan(devices.wasm, 1.8e6, works.write))).toBe(
      "layers one operation at a time, decoding one operation at a time",
    )
    expect(describePlan(plan(devices["a CPU"], 1e9, works.write))).toBe(
      "layers by graph, prompts and decoding by graph, matrices kept in bf16, no padding",
    )
    expect(describePlan(plan(devices["CUDA with XLA"], 1e9, works["a long training"]))).toBe(
      "layers by graph, compiled by XLA, matrices kept in bf16",
    )
  })
})
