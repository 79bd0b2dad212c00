import { z } from "zod"
import type { Place } from "../../data/jsonl"
import { InputError } from "../../errors"
import type { Benchmark, BenchmarkItem, Judge, Judgement, Scoring } from "../benchmark"
import { fileIn, uniqueRecords } from "../records"
import { type ComplexbenchResult, complexbenchFigures, type Verdict } from "./figures"
import { type Asked, extractionPrompt, parseExtraction, parseVerdict, questionPrompt } from "./prompts"
import { checkRule } from "./rules"

const DATA = "data_final.json"

const names = z.array(z.string())

/** A record of the official file (fields that grading does not need are passed over). */
const complexbenchRecord = z.object({
  main_id: z.int().min(0),
  group: z
    .string()
    .nullish()
    .transform((group) => group || null),
  instruction: z.string().min(1),
  instruction_en: z.string().optional(),
  task_types: z.string(),
  composition_types: names,
  category: z.string(),
  scoring_questions: z
    .array(
      z.object({
        question: z.string().min(1),
        question_en: z.string().optional(),
        rule: z.string().min(1).nullable(),
        constraint_dimensions: names,
        composition_types: names,
        dep: z.array(z.int().min(0)).describe("positions of the questions that this one depends on"),
      }),
    )
    .min(1),
})
export type ComplexbenchRecord = z.output<typeof complexbenchRecord>

export type Language = "zh" | "en"

/** What grading needs: the record in the language asked for. */
export type ComplexbenchData = Omit<ComplexbenchRecord, "instruction_en">

async function load(path: string, language: Language) {
  const items: BenchmarkItem<ComplexbenchData>[] = []
  for await (const { record: both, place } of uniqueRecords([fileIn(path, DATA)], complexbenchRecord, "main_id")) {
    const record = inLanguage(both, language, place)
    const count = record.scoring_questions.length
    for (const [i, { dep }] of record.scoring_questions.entries()) {
      const wrong = dep.find((other) => other >= count || other === i)
      if (wrong === undefined) continue
      const problem = `must name another of the ${count} questions, from 0, got ${wrong}; correct the record`
      throw new InputError(problem, { ...place, field: `scoring_questions.${i}.dep` })
    }
    const id = `${record.main_id}`
    const unit = record.group ?? id
    items.push({ id, unit, turns: [record.instruction], temperature: 0, maxTokens: 2048, data: record })
  }
  return items
}

function inLanguage(record: ComplexbenchRecord, language: Language, place: Place): ComplexbenchData {
  const { instruction_en, ...data } = record
  if (language === "zh") return data
  const text = (value: string | undefined, field: string) => {
    if (value) return value
    const problem = "must hold the English text, got none; use the official file of January 2025 or later"
    throw new InputError(problem, { ...place, field })
  }
  return {
    ...data,
    instruction: text(instruction_en, "instruction_en"),
    scoring_questions: data.scoring_questions.map((question, i) => ({
      ...question,
      question: text(question.question_en, `scoring_questions.${i}.question_en`),
    })),
  }
}

/** One call a question: its verdict, or what its rule is to be applied to. Temperature 0, as officially. */
function collect(data: ComplexbenchData, response: string, judge: Judge): Promise<Judgement[]> {
  const ask = ({ question, rule }: ComplexbenchData["scoring_questions"][number]) => {
    const request: Asked = { instruction: data.instruction, response, question }
    const content = rule === null ? questionPrompt(request) : extractionPrompt(request, rule.includes("each"))
    const readable = (text: string) =>
      (rule === null ? parseVerdict(text, "corrected") : parseExtraction(text, response, "corrected")) !== null
    return judge({ messages: [{ role: "user", content }], temperature: 0, maxTokens: 4096 }, ({ text }) =>
      readable(text),
    )
  }
  return Promise.all(data.scoring_questions.map(ask))
}

/** Official scoring reads the first reply, whatever it is; corrected scoring the last one, or finds no verdict. */
function ownVerdict(
  rule: string | null,
  judgement: Judgement | undefined,
  response: string,
  scoring: Scoring,
): Verdict {
  const text = (scoring === "official" ? judgement?.replies[0] : judgement?.replies.at(-1))?.text ?? ""
  if (rule === null) return parseVerdict(text, scoring)
  const objects = parseExtraction(text, response, scoring)
  return objects ? checkRule(rule, objects, scoring) : null
}

function score(
  data: ComplexbenchData,
  response: string,
  judgements: readonly Judgement[],
  scoring: Scoring,
): ComplexbenchResult {
  const own = data.scoring_questions.map(({ rule }, i) => ownVerdict(rule, judgements[i], response, scoring))
  return {
    id: `${data.main_id}`,
    group: data.group,
    category: data.category,
    task: data.task_types,
    compositions: data.composition_types,
    questions: data.scoring_questions.map(({ constraint_dimensions, composition_types, dep }, i) => ({
      dimensions: constraint_dimensions,
      compositions: composition_types,
      own: own[i]!,
      final: dep.some((other) => own[other] === false) ? false : own[i]!,
    })),
  }
}

function notes(results: readonly ComplexbenchResult[], scoring: Scoring): string[] {
  const all = results.flatMap(({ questions }) => questions)
  const [unread, unknown] = [null, "unknown"].map((kind) => all.filter(({ own }) => own === kind).length)
  const treated = scoring === "official" ? "counted as no in DRFR, as yes by dimension" : "left out"
  return [
    ...(unread ? [`${unread} of ${all.length} judge replies could not be read and are left out`] : []),
    ...(unknown ? [`${unknown} of ${all.length} questions have a rule that is not of the language: ${treated}`] : []),
    "the judge prompts are worded otherwise than the official ones",
  ]
}

const complexbenchIn = (language: Language): Benchmark<ComplexbenchData, Judgement[], ComplexbenchResult> => ({
  name: language === "zh" ? "complexbench" : "complexbench-en",
  about:
    language === "zh"
      ? "ComplexBench: 5306 questions on 1150 Chinese instructions, DRFR (judged, with rules)"
      : "ComplexBench in the official English translation; its rules stay Chinese and do not suit all English answers",
  source: {
    home: "https://github.com/thu-coai/ComplexBench",
    files: [
      {
        name: DATA,
        url: "https://raw.githubusercontent.com/thu-coai/ComplexBench/main/data/data_final.json",
      },
    ],
    licence: "MIT",
  },
  judged: true,
  load: (path) => load(path, language),
  collect: ({ data }, [response = ""], judge) => collect(data, response, judge),
  score: ({ data }, [response = ""], collected, scoring) => score(data, response, collected ?? [], scoring),
  figures: complexbenchFigures,
  notes,
})

/**
 * ComplexBench (Wen et al., 2024): yes/no questions on each instruction, decided by a judge or by a rule on text that
 * the judge extracts. A question fails with any that it depends on directly, by that one's own verdict. Answers are
 * greedy.
 */
export const complexbench = complexbenchIn("zh")

/** The same on the English translation; prompts to the judge stay Chinese, as officially. */
export const complexbenchEn = complexbenchIn("en")
