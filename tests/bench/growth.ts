import type { Answer, Job } from "./jobs"

/** How time or memory grows with one quantity. */
export interface Growth {
  name: string
  title: string
  x: string
  y: string
  points: { x: number; y: number; peakMiB: number }[]
}

interface Sweep {
  title: string
  x: string
  y: string
  values: readonly number[]
  job(value: number): Pick<Job, "work"> & Partial<Job>
  /** the value shown for an answer */
  shown(answer: Answer): number
}

const seconds = ({ seconds }: Answer) => seconds
const rate = ({ done, seconds }: Answer) => done / seconds

function sweeps(adapter: string): Record<string, Sweep> {
  const step = { work: "step", adapter, warmup: 1, steps: 3 } as const
  return {
    "by-pairs": {
      title: "DPO over pairs",
      x: "pairs",
      y: "seconds",
      values: [32, 64, 128, 256],
      job: (count) => ({ work: "dpo", adapter, count, batch: 8, lr: 1e-3, beta: 0.1 }),
      shown: seconds,
    },
    "by-stream": {
      title: "streamed pairs, 256 of them trained on",
      x: "pairs",
      y: "seconds",
      values: [1000, 10_000, 100_000],
      job: (count) => ({ work: "stream", count }),
      shown: seconds,
    },
    "by-length": {
      title: "LoRA step of 2,048 tokens by sequence length",
      x: "tokens a row",
      y: "tokens/s",
      values: [64, 128, 256, 512],
      job: (length) => ({ ...step, length, batch: 2048 / length }),
      shown: rate,
    },
    "by-vocabulary": {
      title: "LoRA step of 4 x 128 tokens by vocabulary, memory above the model",
      x: "vocabulary",
      y: "tokens/s",
      values: [1024, 4096, 16_384, 65_536, 262_144],
      job: (vocabulary) => ({ work: "vocabulary", vocabulary, batch: 4, length: 128, warmup: 1, steps: 2 }),
      shown: rate,
    },
    "by-batch": {
      title: "generation of 32 tokens by batch",
      x: "rows",
      y: "tokens/s",
      values: [1, 4, 16, 64],
      job: (batch) => ({ work: "generate", batch, count: batch, tokens: 32 }),
      shown: rate,
    },
  }
}

export const growthNames = Object.keys(sweeps(""))

/** Measures all values of one of `growthNames`. */
export async function measureGrowth(
  name: string,
  base: Job,
  adapter: string,
  run: (job: Job) => Promise<Answer>,
): Promise<Growth> {
  const { title, x, y, values, job, shown } = sweeps(adapter)[name]!
  const points: Growth["points"] = []
  for (const value of values) {
    const answer = await run({ ...base, ...job(value) })
    points.push({
      x: value,
      y: Number(shown(answer).toPrecision(4)),
      peakMiB: Math.round(answer.extraMiB ?? answer.peakMiB),
    })
  }
  return { name, title, x, y, points }
}
