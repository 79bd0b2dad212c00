import { existsSync, readFileSync, statSync } from "node:fs"
import { dirname, join } from "node:path"
import { z } from "zod"
import { fileError } from "../data/files"
import type { Message } from "../data/schema"
import { InputError } from "../errors"
import type { Benchmark, BenchmarkItem, Judge, Judgement, Scoring } from "./benchmark"
import { isNoVerdict } from "./judge"
import { uniqueRecords } from "./records"

/**
 * InFoBench (Qin et al. 2024): 500 instructions, each with questions that a judge answers by yes or no. DRFR is the
 * share of yes over all questions.
 */
const record = z.looseObject({
  id: z.string().min(1),
  instruction: z.string().min(1),
  input: z.string().nullable().describe("a text that the instruction is about, or empty"),
  decomposed_questions: z.array(z.string().min(1)).min(1),
  question_label: z.array(z.array(z.string())).describe("kinds of each question"),
  subset: z.enum(["Easy_set", "Hard_set"]),
})

const labels = ["Content", "Format", "Number", "Style", "Linguistic"] as const

interface Data {
  input: string
  questions: { question: string; labels: string[] }[]
  hard: boolean
  /** The official judge's rules, where the official script stands beside the data. */
  rules: string | null
}

/** Replies to each question that was asked, the last of each being the one that counts. */
type Collected = string[][]

interface Result {
  hard: boolean
  /** Questions that were asked, with what was read of the reply. */
  asked: { labels: string[]; satisfied: boolean | null }[]
  /** Questions that were not asked, since the reply before could not be read. */
  unasked: number
  officialRules: boolean
}

/** The judge's rules in our own words; the official script's take their place where it is available. */
const ourRules = `Answer the questions about the generated text (and the input, if there is one) with YES or NO.

- YES: the generated text fulfils the condition of the question entirely. A small inaccuracy already excludes YES: \
when a question asks whether every sentence has some property and one sentence lacks it, the answer is NO.

- NO: the generated text does not fulfil the condition, or holds nothing by which the question could be answered: \
when a question asks about the second sentence and there is only one, the answer is NO.`

const script = "evaluation.py"

/** First user message about a text; in a conversation, later messages are bare questions. */
function firstPrompt({ rules, input }: Data, text: string, question: string): string {
  const about = input ? `Input:\n"${input}"\n\n` : ""
  return `${rules ?? ourRules}\n\n${about}Generated Text:\n"${text}"\n\nQuestion:\n${question}\n`
}

/**
 * The verdict of a reply, null for none. Official: it begins with yes or no in any case (so does "Nothing", a no), else
 * it has exactly one of YES and NO in capitals, inside words too. Corrected: the same with whole words, behind quotes
 * and marks; the no of "No faults found. YES" is none.
 */
function infobenchVerdict(reply: string, scoring: Scoring): boolean | null {
  const edge = scoring === "official" ? "" : "\\b"
  const start = new RegExp(scoring === "official" ? "^(yes|no)" : "^[^\\p{L}\\p{N}]*(yes|no)\\b", "iu").exec(reply)
  if (start && (scoring === "official" || !isNoVerdict(reply))) return start[1]!.toLowerCase() === "yes"
  const [yes, no] = ["YES", "NO"].map((word) => new RegExp(`${edge}${word}${edge}`).test(reply))
  return yes === no ? null : yes!
}

const readable = (text: string) =>
  infobenchVerdict(text, "official") !== null && infobenchVerdict(text, "corrected") !== null

const source: Benchmark["source"] = {
  home: "https://huggingface.co/datasets/kqsong/InFoBench",
  files: [
    {
      name: "InfoBench.json",
      url: "https://huggingface.co/datasets/kqsong/InFoBench/resolve/cef03a2830944bfb0d201107895ddd0e0e90bf0e/InfoBench.json",
      sha256: "66a2ee8d70208a7a879a17f471ba0ffd097b698265ea4796be99a273fdcc6559",
    },
    {
      name: script,
      url: "https://raw.githubusercontent.com/qinyiwei/InfoBench/557fba025e7d570464fe47d7ead8d81019d05992/evaluation.py",
      sha256: "e18f50e526da70a45ca7cf5d8681f0ccc975db694a7cb2afbde5007abed25475",
    },
    { name: "InfoBench-input.json", sha256: "73a966cce873850099dcbd42a9d93838b85d39437902809a79084d616279a57c" },
    { name: "InfoBench-noinput.json", sha256: "6b90524612b1024e7e66384b55c9b7f088fe06c466a4433ee8cbe5db678e33a2" },
  ],
  licence: "MIT",
}

async function load(path: string): Promise<BenchmarkItem<Data>[]> {
  const folder = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
  const rules = officialRules(join(folder ? path : dirname(path), script))
  const items: BenchmarkItem<Data>[] = []
  for await (const { record: row, place } of uniqueRecords(folder ? filesIn(path) : [path], record, "id")) {
    if (row.question_label.length !== row.decomposed_questions.length) {
      const rule = `must have an entry for each of the ${row.decomposed_questions.length} questions`
      const problem = `${rule}, got ${row.question_label.length}; correct the record`
      throw new InputError(problem, { ...place, field: "question_label" })
    }
    const input = row.input ?? ""
    const questions = row.decomposed_questions.map((question, i) => ({ question, labels: row.question_label[i]! }))
    items.push({
      id: row.id,
      unit: row.id,
      turns: [input ? `${row.instruction}\n\n${input}` : row.instruction],
      // Greedy as the official README advises; the official script's own default is .7.
      temperature: 0,
      maxTokens: 1024,
      data: { input, questions, hard: row.subset === "Hard_set", rules },
    })
  }
  return items
}

const ask = (judge: Judge, messages: readonly Message[]): Promise<Judgement> =>
  judge({ messages, temperature: 0, maxTokens: 1024 }, (reply) => readable(reply.text))

const textsOf = ({ replies }: Judgement): string[] => replies.map((reply) => reply.text)

async function askEach(data: Data, text: string, judge: Judge): Promise<Collected> {
  return Promise.all(
    data.questions.map(async ({ question }) =>
      textsOf(await ask(judge, [{ role: "user", content: firstPrompt(data, text, question) }])),
    ),
  )
}

/** Asks the questions in one conversation, up to the first reply that neither scoring can read. */
async function converse(data: Data, text: string, judge: Judge): Promise<Collected> {
  const messages: Message[] = []
  const asked: Collected = []
  for (const { question } of data.questions) {
    messages.push({ role: "user", content: asked.length ? `${question}\n` : firstPrompt(data, text, question) })
    const judgement = await ask(judge, [...messages])
    asked.push(textsOf(judgement))
    const last = judgement.replies.at(-1)!.text
    messages.push({ role: "assistant", content: last })
    const lost = (["official", "corrected"] as const).every((scoring) => infobenchVerdict(last, scoring) === null)
    if (!judgement.parsed && lost) break
  }
  return asked
}

/** DRFR: the share of yes among the questions with this label (all without one) of the items to keep. */
function satisfaction(
  results: readonly Result[],
  scoring: Scoring,
  { keep = () => true, label }: { keep?: (result: Result) => boolean; label?: string } = {},
): number {
  let yes = 0
  let all = 0
  for (const result of results) {
    if (!keep(result)) continue
    for (const { labels, satisfied } of result.asked) {
      if (label && !labels.includes(label)) continue
      if (satisfied) yes++
      if (satisfied !== null || scoring === "official") all++
    }
  }
  return yes / all
}

function figures(results: readonly Result[], scoring: Scoring): Record<string, number> {
  const types = labels.map((label) => [`type: ${label}`, satisfaction(results, scoring, { label })])
  return {
    DRFR: satisfaction(results, scoring),
    "DRFR Easy": satisfaction(results, scoring, { keep: ({ hard }) => !hard }),
    "DRFR Hard": satisfaction(results, scoring, { keep: ({ hard }) => hard }),
    ...Object.fromEntries(types),
  }
}

function notes(results: readonly Result[], scoring: Scoring): string[] {
  const unread = results.flatMap(({ asked }) => asked).filter(({ satisfied }) => satisfied === null).length
  const unasked = results.reduce((sum, result) => sum + result.unasked, 0)
  const hard = results.filter((result) => result.hard).length
  const own = results.some(({ officialRules }) => !officialRules)
  return [
    unread && `${unread} replies could not be read: ${scoring === "official" ? "counted as no" : "left out"}`,
    unasked && `${unasked} questions behind an unreadable reply were not asked, and are left out`,
    hard &&
      `${hard} items are of the Hard set, which MuSC's released pairs were made from: a model trained on them knows it`,
    own && `the judge's rules are in our own words; put the official ${script} beside the data for its own`,
  ].filter((note) => typeof note === "string")
}

/**
 * As published, one conversation an item: rules, texts and first question, then the bare questions one by one with the
 * judge's earlier answers in sight; an unreadable reply ends the item. With `single`, every question is asked by
 * itself, so that no answer sways the next: not comparable with published figures.
 *
 * Official scoring counts an unreadable reply as no and leaves unasked questions out. Corrected scoring leaves both
 * out. Replies that cannot be read are asked for again first, where the official script never does.
 */
function infobenchOf({ single }: { single: boolean }): Benchmark<Data, Collected, Result> {
  return {
    name: single ? "infobench-single" : "infobench",
    about: `500 instructions, 2,250 yes/no questions to a judge, ${single ? "each by itself" : "one conversation an item"}: DRFR`,
    source,
    judged: true,
    load,
    collect: ({ data }, [text = ""], judge) => (single ? askEach : converse)(data, text, judge),

    score({ data }, _responses, collected, scoring) {
      const asked: Result["asked"] = []
      for (const [i, replies] of (collected ?? []).entries()) {
        const satisfied = infobenchVerdict(replies.at(-1) ?? "", scoring)
        asked.push({ labels: data.questions[i]!.labels, satisfied })
        if (satisfied === null && scoring === "official" && !single) break
      }
      const unasked = data.questions.length - asked.length
      return { hard: data.hard, asked, unasked, officialRules: data.rules !== null }
    },

    figures,
    notes(results, scoring) {
      const said = notes(results, scoring)
      if (single) said.push("each question was asked by itself; published figures come from one conversation an item")
      return said
    },
  }
}

export const infobench = infobenchOf({ single: false })
export const infobenchSingle = infobenchOf({ single: true })

/** The official names, of the whole set and of the Hard set in two parts. */
function filesIn(folder: string): string[] {
  const names = ["InfoBench.json", "InfoBench.jsonl", "InfoBench-input.json", "InfoBench-noinput.json"]
  const present = names.map((name) => join(folder, name)).filter((file) => existsSync(file))
  if (!present.length)
    throw new InputError(`must hold ${names.join(" or ")}, got none; name the file`, { file: folder })
  return present
}

/** The text of SYS_MSG in the official script, whose escapes are those of JSON; null where there is no script. */
function officialRules(file: string): string | null {
  if (!existsSync(file)) return null
  try {
    const text = /^SYS_MSG\s*=\s*("(?:[^"\\\n]|\\.)*")/m.exec(readFileSync(file, "utf8"))?.[1]
    if (text) return JSON.parse(text)
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw fileError(error, file, "read")
  }
  throw new InputError("must hold the judge's rules as SYS_MSG, got none; fetch the official script again or move it", {
    file,
  })
}
