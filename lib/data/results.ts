import { z } from "zod"

/** Records of evaluation, training logs and results, declared once. Rates are shares in [0, 1]. */

/** One graded answer. */
export const evalItem = z.object({
  id: z.string(),
  seed: z.int(),
  method: z.string().describe("base, sft, coarse, musc, …"),
  temperature: z.number(),
  instruction: z.string(),
  answer: z.string(),
  thoughts: z.string().optional().describe("what a model that thinks aloud wrote before the answer"),
  problem: z.string().optional().describe("why there is no answer, in which case no constraint is satisfied"),
  tokens: z.int().optional().describe("tokens of the answer, end-of-turn included"),
  cut: z.boolean().optional().describe("whether the token limit cut the answer off"),
  constraints: z.array(
    z.object({
      question: z.string(),
      kind: z.string().describe("kind of constraint where the grader knows it, else the empty string"),
      satisfied: z.boolean().nullable().describe("null: the judge's reply could not be read"),
      reply: z.string().optional().describe("the judge's reply, where a model judged"),
      thoughts: z.string().optional().describe("what a judge that thinks aloud wrote before it"),
    }),
  ),
})
/** One graded answer: a line of `evaluate/<method>-T<t>.jsonl`. @interface */
export type EvalItem = z.infer<typeof evalItem>

const pair: z.ZodType = z.tuple([z.number(), z.number()])
/** Declared by hand: without strict null checks, as in plain tslab, zod takes the numbers for optional. */
const interval = (pair as z.ZodType<[number, number]>).describe(
  "95 % interval over seeds and instructions; with one seed over instructions alone",
)

/** Constraint and instruction satisfaction of one method at one temperature, over all seeds. */
const score = z.object({
  csr: z.number(),
  csr_interval: interval,
  isr: z.number(),
  isr_interval: interval,
  n: z.int().describe("answers, all seeds together"),
  unreadable: z.int().describe("constraints without a readable verdict; left out of the rates"),
  seeds: z.array(z.object({ seed: z.int(), csr: z.number(), isr: z.number(), n: z.int() })),
})
/** CSR and ISR of one method at one temperature, as shares from 0 to 1, with 95 % intervals. @interface */
export type Score = z.infer<typeof score>

const probability = z
  .number()
  .nullable()
  .optional()
  .describe("two-sided p of no difference, not corrected for how many there are; results made before lack it")

/** `method` minus `against` on the same seeds and instructions, with a paired interval. */
const difference = z.object({
  method: z.string(),
  against: z.string(),
  temperature: z.string(),
  csr: z.number(),
  csr_interval: interval,
  csr_p: probability,
  isr: z.number(),
  isr_interval: interval,
  isr_p: probability,
})
/** @interface */
export type Difference = z.infer<typeof difference>

const keptShare = z.number().nullable()

/** What answers look like beside the constraints that they keep. */
const answerFigures = z.object({
  words: z.number().describe("mean number of words"),
  tokens: z.number().nullable().describe("mean number of tokens, end-of-turn included"),
  cut: z.number().nullable().describe("share cut off at the token limit"),
  repeated: z.number().describe("share in which the same four words in a row come three times or more"),
})
export type AnswerFigures = z.infer<typeof answerFigures>

/** Constraints kept, by kind. */
const kindShares = z.record(z.string(), z.object({ kept: z.int(), n: z.int() }))
export type KindShares = z.infer<typeof kindShares>

const figure = z.object({ value: keptShare, interval: z.tuple([keptShare, keptShare]) })

/** What a benchmark says of the methods of a run: over the items that all of them have, and over all seeds. */
const benchmarkResults = z.object({
  benchmark: z.string(),
  scoring: z.enum(["official", "corrected"]),
  judge: z.string().nullable(),
  items: z.int().describe("items that every method has a result for, in every seed"),
  left_out: z.int().describe("items that some method has no result for"),
  notes: z.array(z.string()),
  methods: z.record(z.string(), z.record(z.string(), figure)).describe("figures of each method, the headline first"),
  differences: z.array(
    z.object({
      ...{ method: z.string(), against: z.string(), figure: z.string() },
      ...figure.shape,
      p: keptShare.describe("two-sided p of no difference, not corrected for how many there are"),
    }),
  ),
})
export type BenchmarkResults = z.infer<typeof benchmarkResults>

/** `results.json` of a run. Temperatures are keyed "T0", "T0.5". */
export const results = z.looseObject({
  methods: z.record(z.string(), z.record(z.string(), score)),
  differences: z.array(difference),
  seeds: z.array(z.int()),
  pairs: z.array(
    z.object({
      seed: z.int(),
      n: z.int(),
      chosen_csr: keptShare.describe("share of the clean instruction's constraints kept by chosen answers"),
      rejected_csr: keptShare,
      chosen_spoiled: keptShare.optional().describe("the same of the spoiled constraints alone"),
      rejected_spoiled: keptShare.optional(),
      verified: z
        .object({ n: z.int(), of: z.int(), by: z.string() })
        .optional()
        .describe("pairs whose chosen answer was confirmed to keep more constraints, and who judged"),
    }),
  ),
  answers: z
    .record(z.string(), z.record(z.string(), answerFigures))
    .optional()
    .describe("by method and temperature, all seeds together"),
  kinds: z
    .record(z.string(), z.record(z.string(), kindShares))
    .optional()
    .describe("by method and temperature, all seeds together; where the grader names kinds"),
  notes: z.array(z.string()).optional().describe("what a reader of the table must know of how the run was done"),
  bases: z
    .record(z.string(), z.string())
    .optional()
    .describe("by method: the one before its training, where that is not base (a study of several models)"),
  baselines: z
    .array(
      z.object({
        method: z.string(),
        seed: z.int(),
        n: z.int(),
        failures: z.record(z.string(), z.int()).describe("instructions that gave no pair, by stage and reason"),
        unreadable: z.int().describe("verdicts or scores of the judge that could not be read"),
        chosen_csr: keptShare,
        rejected_csr: keptShare,
      }),
    )
    .optional()
    .describe("pairs that baselines made for themselves"),
  trained: z
    .array(
      z.object({
        method: z.string(),
        seed: z.int(),
        pairs: z.int().describe("pairs trained on"),
        left_out: z.int().describe("pairs whose prompt alone reaches the cut-off, or whose texts are refused"),
        shortened: z.int().describe("pairs with an answer whose end the cut-off takes"),
      }),
    )
    .optional()
    .describe("what each method was trained on; results made before lack it"),
  judged_by: z.string().optional().describe("who says which constraints an answer keeps; results made before lack it"),
  benchmarks: z.array(benchmarkResults).optional(),
  split: z.enum(["test", "development"]).optional().describe("what was answered: see evalSplit"),
})
/** What `results.json` of a run holds. @interface */
export type Results = z.infer<typeof results>

/** One line of `metrics.jsonl`: an optimizer step. Preference losses add rewards, margin and accuracy. */
export const metricsLine = z.looseObject({
  step: z.int(),
  steps: z.int(),
  loss: z.number(),
  lr: z.number(),
  grad_norm: z.number(),
  tokens: z.int(),
  chosen_reward: z.number().optional(),
  rejected_reward: z.number().optional(),
  margin: z.number().optional(),
  accuracy: z.number().optional(),
})
/** One optimizer step: a line of `metrics.jsonl`. Loss, rewards and margin are in nats. @interface */
export type MetricsLine = z.infer<typeof metricsLine>
