import { z } from "zod"
import { mean } from "../data/numbers"
import type { Benchmark, BenchmarkItem, Judgement, JudgeRequest } from "./benchmark"
import { typeShares } from "./figures"
import { pythonFloat } from "./python"
import { fileIn, uniqueRecords } from "./records"

const DATA = "cfbench_data.json"

const criterion = z.tuple([z.string().min(1), z.enum(["主需", "次需"]), z.string(), z.string()])

/** A record of the official file (fields that grading does not need are passed over). `doamin` is spelt so there. */
export const cfbenchRecord = z.object({
  idx: z.int().min(0),
  prompt: z.string().describe("empty in one official record (idx 810)"),
  gold: z.string().describe("reference answer, mostly empty"),
  split: z.enum(["easy", "hard"]),
  criteria: z.array(criterion).min(1).describe("text, priority (主需 primary, 次需 secondary), type, subtype"),
})
export type CfbenchRecord = z.output<typeof cfbenchRecord>

/**
 * How the verdicts were got: from a reply that echoes every criterion; from whatever lines of an unreadable reply end
 * in a 1 (official only); not at all.
 */
export type CfbenchParsing = "parsed" | "fallback" | "none"

export interface CfbenchResult {
  split: "easy" | "hard"
  parsing: CfbenchParsing
  /** A criterion each: its type and verdict. Null verdicts where the reply was not parsed. */
  criteria: { type: string; satisfied: boolean | null }[]
  /** Null: left out of all means (corrected scoring of an unparsed reply). */
  csr: number | null
  isr: number | null
  psr: number | null
}

const instructions = `请你担任回答质量的评审员。下面给出用户指令、参考答案、模型答案，以及一组评估标准。
参考答案与模型答案都是针对用户指令的回答。请逐条核对评估标准，判断模型答案是否做到：完全做到记 1，没有做到或只做到一部分记 0。
参考答案为空时，只依据用户指令与评估标准来判断。

输出要求：
1. 依照评估标准原有的顺序逐条输出，条与条之间用一个空行隔开；
2. 每条先一字不差地抄写该评估标准，接着输出一个制表符（\\t），再输出得分 0 或 1；
3. 除此之外不要输出任何内容。

示例一
用户指令：把“会议在周三举行”里的“周三”换成“周五”，只给出修改后的句子。
参考答案：会议在周五举行
模型答案：修改好了：会议在周五举行
评估标准：
替换正确，与参考答案一致

只有修改后的句子，没有多余的话
你的评估：
替换正确，与参考答案一致\t1

只有修改后的句子，没有多余的话\t0

示例二
用户指令：用两句话介绍西湖，语气活泼，不要出现数字。
参考答案：
模型答案：西湖可美啦，四季都有看头！快约上朋友一起去走走吧！
评估标准：
介绍的是西湖

一共两句话

语气活泼

没有出现数字
你的评估：
介绍的是西湖\t1

一共两句话\t1

语气活泼\t1

没有出现数字\t1`

/**
 * The one call that judges an answer (temperature .01 as in the official script). Structure and output form are the
 * official ones, the wording and the two worked examples are ours, so figures are near to published ones but not
 * comparable to the last digit.
 */
function cfbenchRequest(record: CfbenchRecord, response: string): JudgeRequest {
  const criteria = record.criteria.map(([text]) => text).join("\n\n")
  const content = `${instructions}

现在请评估：
用户指令：${record.prompt}
参考答案：${record.gold}
模型答案：${response}
评估标准：
${criteria}
你的评估：`
  return { messages: [{ role: "user", content }], temperature: 0.01, maxTokens: 4096 }
}

/**
 * The verdicts of a reply in the official form: blocks parted by an empty line, as many as criteria, each the exact
 * text of its criterion, one tab, and 0 or 1. Undefined for any other reply.
 */
export function parseCfbench(reply: string, criteria: readonly string[]): boolean[] | undefined {
  const blocks = reply.split("\n\n")
  if (blocks.length !== criteria.length) return undefined
  const verdicts = blocks.map((block, i) => {
    const [text, score, ...more] = block.split("\t")
    return more.length || text !== criteria[i] ? undefined : verdict(score)
  })
  return verdicts.every((v) => v !== undefined) ? verdicts : undefined
}

/**
 * As parseCfbench, but blanks and punctuation of a text do not count: judges drop the blanks around 29 official texts
 * and add or leave out full stops and quotes.
 */
export function parseCfbenchLeniently(reply: string, criteria: readonly string[]): boolean[] | undefined {
  const blocks = reply
    .replace(/\r\n?/g, "\n")
    .trim()
    .split(/\n[^\S\n]*\n\s*/)
  const squeeze = (text: string) => text.replace(/[\s\p{P}]+/gu, "")
  const strict = blocks.map((block) => {
    const at = block.trimEnd().search(/\s\p{Nd}$/u)
    return at < 0 ? block : `${squeeze(block.slice(0, at))}\t${block.slice(at + 1)}`
  })
  return parseCfbench(strict.join("\n\n"), criteria.map(squeeze))
}

/** Python's float() of a text, where that is 0 or 1; digits of any script count, such as the full-width １. */
function verdict(score: string | undefined): boolean | undefined {
  const value = score === undefined ? undefined : pythonFloat(score)
  return value === 0 ? false : value === 1 ? true : undefined
}

/** Two decimals as numpy has it: half to even on the double that 100 x gives. */
export function round2(x: number): number {
  const scaled = x * 100
  const floor = Math.floor(scaled)
  const rest = scaled - floor
  const up = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0)
  return (floor + Number(up)) / 100
}

/** PSR of an item whose criteria are all judged: primary ones are a must, of the secondary ones more than .6. */
function psrOf(criteria: CfbenchRecord["criteria"], verdicts: readonly number[], round: (x: number) => number): number {
  const of = (priority: string) => verdicts.filter((_, i) => criteria[i]![1] === priority)
  const [primary, secondary] = [of("主需"), of("次需")]
  if (primary.includes(0)) return 0
  if (!primary.length) return Number(round(mean(verdicts)) > 0.8)
  return secondary.length ? Number(0.5 + 0.5 * round(mean(secondary)) > 0.8) : 1
}

/**
 * Official scoring rounds item values to two decimals and reads an unparsed reply as far as its lines end in a 1 (a 0
 * is passed over, so such an item has CSR 1 and full ISR and PSR), or gives 0 when there is none. Corrected scoring
 * does not round, forgives blanks and punctuation in the echo, and leaves an unparsed item out.
 */
function score(
  record: CfbenchRecord,
  { replies }: Pick<Judgement, "replies">,
  scoring: "official" | "corrected",
): CfbenchResult {
  const texts = record.criteria.map(([text]) => text)
  const official = scoring === "official"
  const reply = replies.at(-1)?.text ?? ""
  const verdicts = official
    ? parseCfbench(reply, texts)
    : replies
        .map(({ text }) => parseCfbenchLeniently(text, texts))
        .reverse()
        .find((parsed) => parsed)
  const round = official ? round2 : (x: number) => x
  const result = (parsing: CfbenchParsing, csr: number | null, isr: number | null, psr: number | null) => ({
    split: record.split,
    parsing,
    criteria: record.criteria.map(([, , type], i) => ({ type, satisfied: verdicts?.[i] ?? null })),
    csr,
    isr,
    psr,
  })
  if (verdicts) {
    const values = verdicts.map(Number)
    const csr = round(mean(values))
    return result("parsed", csr, Number(csr === 1), psrOf(record.criteria, values, round))
  }
  if (!official) return result("none", null, null, null)
  const ones = reply.split("\n").some((line) => line.split("\t").length === 2 && verdict(line.split("\t")[1]) === true)
  return ones ? result("fallback", 1, 1, 1) : result("none", 0, 0, 0)
}

/**
 * CSR (share of criteria kept), ISR (all kept) and PSR (all primary and more than .6 of the secondary kept), each a
 * mean over items, so that short items weigh as much as long ones; by split; and by type of criterion, there pooled
 * over the criteria of parsed items.
 */
function figures(results: readonly CfbenchResult[]): Record<string, number> {
  const out: Record<string, number> = {}
  for (const split of ["", " easy", " hard"]) {
    const own = results.filter((result) => !split || ` ${result.split}` === split)
    for (const name of ["csr", "isr", "psr"] as const) {
      const values = own.map((result) => result[name]).filter((value) => value !== null)
      out[`${name.toUpperCase()}${split}`] = mean(values)
    }
  }
  return { ...out, ...typeShares(results.flatMap(({ criteria }) => criteria)) }
}

function notes(results: readonly CfbenchResult[], scoring: "official" | "corrected"): string[] {
  const count = (parsing: CfbenchParsing) => results.filter((result) => result.parsing === parsing).length
  const [fallback, none] = [count("fallback"), count("none")]
  return [
    ...(fallback
      ? [`${fallback} judge replies were not parsed; official scoring counts them as all criteria kept`]
      : []),
    ...(none && scoring === "official" ? [`${none} judge replies were not parsed and count as 0`] : []),
    ...(none && scoring === "corrected" ? [`${none} items without a readable judgement are left out`] : []),
    "the judge prompt is worded otherwise than the official one",
  ]
}

async function load(path: string) {
  const items: BenchmarkItem<CfbenchRecord>[] = []
  for await (const { record: data } of uniqueRecords([fileIn(path, DATA)], cfbenchRecord, "idx")) {
    const id = `${data.idx}`
    items.push({ id, unit: id, turns: [data.prompt], temperature: 0, maxTokens: 2048, data })
  }
  return items
}

/**
 * CFBench (Zhang et al., 2024): 1000 Chinese instructions with 4237 criteria, judged in one call an answer. Answers are
 * greedy with up to 2048 tokens; the official code sets no common rule. Official: the judge is asked up to ten times.
 */
export const cfbench: Benchmark<CfbenchRecord, Judgement, CfbenchResult> = {
  name: "cfbench",
  about: "CFBench: criteria of 1000 Chinese instructions, CSR, ISR, PSR (judged)",
  source: {
    home: "https://github.com/PKU-Baichuan-MLSystemLab/CFBench",
    files: [
      {
        name: DATA,
        url: "https://raw.githubusercontent.com/PKU-Baichuan-MLSystemLab/CFBench/main/data/cfbench_data.json",
        sha256: "f28bfe94420ff61063183712179988718c6caedcdd3d0635cc6d0383289796fc",
      },
    ],
    licence: "none stated",
  },
  judged: true,
  load,
  collect: ({ data }, [response = ""], judge) => {
    const texts = data.criteria.map(([text]) => text)
    return judge(cfbenchRequest(data, response), ({ text }) => parseCfbench(text, texts) !== undefined)
  },
  score: ({ data }, _responses, collected, scoring) => score(data, collected ?? { replies: [] }, scoring),
  figures,
  notes,
}
