import { currentDevice, type Device, type Maths } from "../device/device"

/**
 * How a model is run: every choice between ways that give the same values, in one place. A plan follows from the
 * device, the size of the model and the work, and nothing decides by itself afterwards.
 */

/** What is to be done with a model. */
export type Work =
  | { kind: "generate" | "score" }
  /** `tokens` of the whole training, if known: below a certain work, graphs take longer to be made than they save */
  | { kind: "train"; adapter: boolean; tokens?: number; checkpointing?: boolean }

/** How a model is run for one kind of work on one device. */
export interface Plan {
  /** A gradient is taken: layers keep, or compute again, what it needs. */
  readonly gradient: boolean
  /** Layers call their operations one by one, or as a graph: see layer-graph.ts. */
  readonly layers: "eager" | "graph"
  /**
   * XLA compiles the layers' graphs, anew for each shape, so that lengths are brought to a few (`bucket` in
   * logprobs.ts); for a device without kernels of ours, which XLA does not know. Not for writing, whose prompts have
   * all lengths.
   */
  readonly xla?: boolean
  /** A decoding step calls its operations one by one, or as a graph of our kernels: see generation-graph.ts. */
  readonly step: "eager" | "graph"
  /** Prompts are read by layers, as above, or by such a graph of all layers. */
  readonly prompts: "layers" | "graph"
  /** Micro-batches that a step of training is cut into, at least. Depends on the device and the model alone. */
  readonly microBatches: 1 | 2
  /** Batches that threads compute side by side, each in its branch of one graph. */
  readonly together: 1 | 2
  /** Sequences of a batch lie end to end, not padded to the longest. Their values are the same to the last bit. */
  readonly paddingFree: boolean
  /** Gradient checkpointing: the backward pass computes each layer again (Chen et al. 2016). */
  readonly recompute: boolean
  /** LoRA is added to float matrices once a step, or applied to each product; to products of frozen ones always. */
  readonly lora: "merged" | "separate"
  /** Matrices of a bf16 checkpoint stay in bf16: see ops/frozen.ts. */
  readonly frozen: boolean
  readonly precision: Maths
  /** threads that kernels and graphs may use */
  readonly threads: number
}

/** Size of a model (f32) from which its products are large enough for all threads to share them well. */
const sharedBytes = 512 * 2 ** 20

/** Whether products with a model of so many parameters are too small for all threads to share them well. */
const isSmall = (parameters: number): boolean => 4 * parameters < sharedBytes

/**
 * Whether several threads get more done on a batch each than together on one, with a model of so many parameters: a
 * small one on a CPU.
 */
export const gainsByBatches = ({ gpu }: Device, parameters: number): boolean => !gpu && isSmall(parameters)

/**
 * Whether matrices of a checkpoint in bf16 are kept so: half of the memory, and products that beat those of floats
 * where weights come from memory rather than from a cache. On AMX, products by tiles have a packing of their own. On a
 * GPU, graphs alone know bf16.
 */
export const keepsBf16 = ({ kernels, gpu, graphs }: Device, parameters: number): boolean =>
  (kernels === "vector" || (gpu && graphs && kernels === "none")) && !isSmall(parameters)

/** Parameters times tokens from which a training wins back the second that its graphs take to be made. */
const worthGraphs = 1.8e11

/** The plan for work on a device with a model of so many parameters. Depends on nothing else. */
export function plan(device: Device, parameters: number, work: Work): Plan {
  const train = work.kind === "train" ? work : null
  const pays = !train || (train.tokens ?? 0) * parameters >= worthGraphs
  const layers = device.graphs && pays ? "graph" : "eager"
  const several = gainsByBatches(device, parameters) ? 2 : 1
  const frozen = keepsBf16(device, parameters) && (!train || train.adapter)
  return {
    gradient: train !== null,
    layers,
    ...(device.xla && device.kernels === "none" && layers === "graph" && work.kind !== "generate" && { xla: true }),
    step: device.graphs && device.kernels !== "none" ? "graph" : "eager",
    // On AMX layers multiply many rows by other kernels than a step multiplies a few.
    prompts: device.graphs && device.kernels === "vector" ? "graph" : "layers",
    microBatches: several,
    together: layers === "graph" ? several : 1,
    // Sums over tokens in the gradient of a small model are TensorFlow's, whose last digits depend on the padding.
    paddingFree: device.kernels !== "none" && (!train || !isSmall(parameters)),
    recompute: train?.checkpointing ?? false,
    // A product of floats plus a low-rank product is one kernel, which exists for AMX alone.
    lora: train?.adapter && device.kernels === "amx" ? "separate" : "merged",
    frozen,
    precision: device.precision,
    threads: device.threads,
  }
}

/** The plan for work with a model of so many parameters on the device of this process. */
export const planFor = (parameters: number, work: Work): Plan => plan(currentDevice(), parameters, work)

/** A plan in a few words, for logs and `musc plan`. */
export function describePlan(plan: Plan): string {
  const { gradient, layers, xla, step, prompts, together, paddingFree, recompute, lora, frozen } = plan
  const parts = [
    `layers ${layers === "graph" ? `by graph${xla ? ", compiled by XLA" : ""}` : "one operation at a time"}`,
  ]
  const both = prompts === "graph" ? "prompts and decoding" : "decoding"
  if (!gradient) parts.push(`${both} ${step === "graph" ? "by graph" : "one operation at a time"}`)
  if (frozen) parts.push("matrices kept in bf16")
  if (together > 1) parts.push("two batches side by side")
  if (paddingFree) parts.push("no padding")
  if (recompute) parts.push("each layer computed again for its gradient")
  if (lora === "separate") parts.push("LoRA applied separately")
  return parts.join(", ")
}
