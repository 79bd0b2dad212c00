import type { BackendName } from "../../lib/device/tf"

/** What one child process is asked to do. Peers get the same object and read what they need of it. */
export interface Job {
  work: "dpo" | "step" | "signals" | "generate" | "logprobs" | "stream" | "vocabulary" | "matmul"
  /** model folder */
  model: string
  backend: BackendName
  /** where PyTorch and the native backend compute */
  device: "cpu" | "cuda"
  threads: number
  /** PyTorch keeps weights as bf16 and multiplies in it: `--math bf16` on a GPU */
  bf16?: boolean
  /** files of the workload, see workload.ts */
  pairs: string
  signals: string
  prompts: string
  adapter?: string
  /** pairs or rows at once, tokens a row, steps, tokens to generate */
  batch?: number
  length?: number
  warmup?: number
  steps?: number
  tokens?: number
  /** generations that are timed together, one by default */
  generations?: number
  /** pairs to take, all by default */
  count?: number
  lr?: number
  beta?: number
  /** whether TRL computes reference log-probs beforehand */
  precompute?: boolean
  gradientCheckpointing?: boolean
  /** processes that generate, score and train; as many as the library would take by default */
  workers?: number
  /** of so many processes this is one, which takes its share of the prompts and starts when told */
  part?: [index: number, of: number]
  vocabulary?: number
}

/** What it answers. `done` units (pairs or tokens) took `seconds`; memory is that of the process at its highest. */
export interface Answer {
  done: number
  seconds: number
  peakMiB: number
  /** loss of each step */
  losses?: number[]
  /** log-probs of all answer tokens */
  logprobs?: number[]
  /** of ours: library, kernels and graphs */
  backend?: string
  /** memory above that of the loaded model */
  extraMiB?: number
}
