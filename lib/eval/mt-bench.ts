import { existsSync, statSync } from "node:fs"
import { dirname, join } from "node:path"
import { z } from "zod"
import type { Place } from "../data/jsonl"
import { InputError } from "../errors"
import type { Benchmark, BenchmarkItem, Judgement, JudgeRequest, Scoring } from "./benchmark"
import { uniqueRecords } from "./records"

/** Sampling temperature of each category. */
const temperatures = {
  writing: 0.7,
  roleplay: 0.7,
  reasoning: 0,
  math: 0,
  coding: 0,
  extraction: 0,
  stem: 0.1,
  humanities: 0.1,
} as const
type Category = keyof typeof temperatures
const categories = Object.keys(temperatures) as Category[]

/** Categories whose judge sees reference answers. */
const withReference: readonly Category[] = ["math", "reasoning", "coding"]

const questionRow = z.looseObject({
  question_id: z.int(),
  category: z.enum(categories as [Category, ...Category[]]),
  turns: z.array(z.string().min(1)).length(2),
})
const referenceRow = z.looseObject({
  question_id: z.int(),
  choices: z.array(z.looseObject({ turns: z.array(z.string()).length(2) })).min(1),
})
const promptRow = z.looseObject({
  name: z.string(),
  system_prompt: z.string(),
  prompt_template: z.string(),
})

export interface MtBenchData {
  category: Category
  /** Reference answers to both turns, where the category has them. */
  reference?: readonly string[]
  /** The judge's system prompt and template for each turn. */
  prompts: readonly { system: string; template: string }[]
}

export interface MtBenchResult {
  category: Category
  /** One a turn, 1 to 10; null when no reply of the judge could be read. */
  ratings: readonly (number | null)[]
}

/** The placeholders that each template must have, by name; answers and questions as in FastChat. */
const placeholders: Record<string, readonly string[]> = {
  "single-v1": ["question", "answer"],
  "single-v1-multi-turn": ["question_1", "answer_1", "question_2", "answer_2"],
  "single-math-v1": ["question", "ref_answer_1", "answer"],
  "single-math-v1-multi-turn": [
    "ref_answer_1",
    "ref_answer_2",
    ...["question_1", "answer_1", "question_2", "answer_2"],
  ],
}

const base = "https://raw.githubusercontent.com/lm-sys/FastChat/main/fastchat/llm_judge/data"

/**
 * MT-Bench (Zheng et al., NeurIPS 2023), single-answer grading: each turn is rated 1 to 10 by one call, the second with
 * both turns in view. The judge's texts are the official ones, read from the data; temperature 0, 2048 tokens. The
 * score is the mean over all rated turns; turns without a readable rating are dropped and counted. Ratings by different
 * judges do not compare, and some of the official reference answers are wrong. Pairwise mode is not offered.
 *
 * `official`: the first `[[n]]` of a reply, or else its first `[n]`, whatever the number. `corrected`: the last one,
 * which is where the judge is told to put it, those behind the word "Rating" before others, and only a number from 1 to
 * 10, so that a quoted format or `[1]` of a list is no rating. Both take the first reply that gives one.
 */
export const mtBench: Benchmark<MtBenchData, Judgement[], MtBenchResult> = {
  name: "mt-bench",
  about: "MT-Bench: 80 questions of two turns in eight categories, rated 1 to 10 by a judge",
  source: {
    home: "https://github.com/lm-sys/FastChat/tree/main/fastchat/llm_judge",
    files: [
      {
        name: "question.jsonl",
        url: `${base}/mt_bench/question.jsonl`,
        sha256: "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
      },
      {
        name: "reference_answer/gpt-4.jsonl",
        url: `${base}/mt_bench/reference_answer/gpt-4.jsonl`,
        sha256: "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
      },
      {
        name: "judge_prompts.jsonl",
        url: `${base}/judge_prompts.jsonl`,
        sha256: "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
      },
    ],
    licence: "Apache-2.0",
  },
  judged: true,
  load,

  collect(item, responses, judge) {
    const readable = ({ text }: { text: string }) => ratingOf(text, "corrected") !== null
    return Promise.all(mtBenchRequests(item, responses).map((request) => judge(request, readable)))
  },

  score({ data: { category } }, _responses, collected, scoring) {
    const rating = ({ replies }: Judgement) =>
      replies.map(({ text }) => ratingOf(text, scoring)).find((found) => found !== null) ?? null
    return { category, ratings: collected?.map(rating) ?? [null, null] }
  },

  figures(results) {
    const mean = (pick: (result: MtBenchResult) => readonly (number | null | undefined)[]) => {
      let [total, n] = [0, 0]
      for (const result of results) {
        for (const rating of pick(result)) {
          if (typeof rating !== "number") continue
          total += rating
          n++
        }
      }
      return total / n
    }
    const there = categories.filter((name) => results.some(({ category }) => category === name))
    return {
      "rating (1-10)": mean(({ ratings }) => ratings),
      "rating turn 1": mean(({ ratings }) => [ratings[0]]),
      "rating turn 2": mean(({ ratings }) => [ratings[1]]),
      ...Object.fromEntries(
        there.map((name) => [`type: ${name}`, mean(({ category, ratings }) => (category === name ? ratings : []))]),
      ),
    }
  },

  notes(results) {
    const ratings = results.flatMap((result) => result.ratings)
    const unread = ratings.filter((rating) => rating === null).length
    const outside = ratings.filter((rating) => rating !== null && (rating < 1 || rating > 10)).length
    return [
      "Ratings compare only under the same judge",
      ...(unread ? [`Turns without a readable rating, dropped: ${unread} of ${ratings.length}`] : []),
      ...(outside ? [`Ratings outside 1 to 10, counted as they are: ${outside}`] : []),
    ]
  },
}

/** The judge's requests for both turns of an item. */
export function mtBenchRequests(
  { turns, data: { reference, prompts } }: BenchmarkItem<MtBenchData>,
  responses: readonly string[],
): JudgeRequest[] {
  const values: Record<string, string | undefined> = { question: turns[0], answer: responses[0] }
  for (const turn of [0, 1]) {
    values[`question_${turn + 1}`] = turns[turn]
    values[`answer_${turn + 1}`] = responses[turn]
    values[`ref_answer_${turn + 1}`] = reference?.[turn]
  }
  return prompts.map(({ system, template }) => ({
    messages: [
      { role: "system", content: system },
      { role: "user", content: template.replace(/\{(\w+)\}/g, (_, name: string) => values[name]!) },
    ],
    temperature: 0,
    maxTokens: 2048,
  }))
}

/** The rating in a judge's reply, null when there is none. See `mtBench` for the two readings. */
export function ratingOf(reply: string, scoring: Scoring): number | null {
  for (const pattern of [/\[\[(\d+\.?\d*)\]\]/g, /\[(\d+\.?\d*)\]/g]) {
    const found = [...reply.matchAll(pattern)]
    if (!found.length) continue
    if (scoring === "official") return Number(found[0]![1])
    const labelled = found.filter(({ index }) =>
      /rating[^\p{L}\p{N}]*$/iu.test(reply.slice(Math.max(0, index - 20), index)),
    )
    const ratings = (labelled.length ? labelled : found).map(([, number]) => Number(number))
    return ratings.reverse().find((number) => number >= 1 && number <= 10) ?? null
  }
  return null
}

/**
 * Reads a folder with `question.jsonl` (or a file of questions in it), `reference_answer/gpt-4.jsonl` and
 * `judge_prompts.jsonl`; the last one may stand in the folder above, as in FastChat.
 * @throws InputError naming file, line and field: a file is missing, a record breaks the format, a question is there
 * twice or lacks its reference, a judge prompt is missing or has other placeholders.
 */
async function load(path: string): Promise<BenchmarkItem<MtBenchData>[]> {
  const isFile = statSync(path, { throwIfNoEntry: false })?.isFile()
  const folder = isFile ? dirname(path) : path
  const questions = await unique(isFile ? path : join(path, "question.jsonl"), questionRow, "question_id")
  const answers = join(folder, "reference_answer", "gpt-4.jsonl")
  const references = await unique(answers, referenceRow, "question_id")
  const promptFile = [folder, dirname(folder)]
    .map((place) => join(place, "judge_prompts.jsonl"))
    .find((file) => existsSync(file))
  if (!promptFile) {
    throw new InputError("the judge's prompts must be here, got no file; fetch it from FastChat's llm_judge/data", {
      file: join(folder, "judge_prompts.jsonl"),
    })
  }
  const prompts = await unique(promptFile, promptRow, "name")
  const promptOf = (name: string) => {
    const prompt = prompts.get(name)
    if (!prompt)
      throw new InputError(`must hold the prompt ${name}, got none; fetch the file again`, { file: promptFile })
    const { record, place } = prompt
    const named = new Set([...record.prompt_template.matchAll(/\{(\w+)\}/g)].map(([, placeholder]) => placeholder!))
    const wanted = placeholders[name]!
    if (named.size !== wanted.length || !wanted.every((one) => named.has(one))) {
      const problem = `must have the placeholders ${wanted.join(", ")}, got ${[...named].join(", ") || "none"}`
      throw new InputError(`${problem}; fetch the file again`, { ...place, field: "prompt_template" })
    }
    return { system: record.system_prompt, template: record.prompt_template }
  }
  const general = ["single-v1", "single-v1-multi-turn"].map(promptOf)
  const math = ["single-math-v1", "single-math-v1-multi-turn"].map(promptOf)
  return [...questions.values()].map(({ record: { question_id, category, turns }, place }) => {
    const id = String(question_id)
    const common = { id, unit: id, turns, temperature: temperatures[category], maxTokens: 1024 }
    if (!withReference.includes(category)) return { ...common, data: { category, prompts: general } }
    const reference = references.get(question_id)?.record.choices[0]?.turns
    if (!reference) {
      const problem = `must have a reference answer in ${answers}, as all of ${category}, got ${id} without; add it`
      throw new InputError(problem, { ...place, field: "question_id" })
    }
    return { ...common, data: { category, prompts: math, reference } }
  })
}

/** The records of a file by a field that no two share. */
async function unique<Schema extends z.ZodType<object>, Key extends keyof z.output<Schema> & string>(
  file: string,
  schema: Schema,
  key: Key,
): Promise<Map<z.output<Schema>[Key], { record: z.output<Schema>; place: Place }>> {
  const found = new Map<z.output<Schema>[Key], { record: z.output<Schema>; place: Place }>()
  for await (const one of uniqueRecords([file], schema, key)) found.set(one.record[key], one)
  return found
}
