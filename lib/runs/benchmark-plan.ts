import { sum } from "../data/numbers"
import type { Message } from "../data/schema"
import type { Benchmark, BenchmarkItem } from "../eval/benchmark"
import { estimateTokens, silentJudge } from "../eval/judge"

/** At most `limit` items from the front, without cutting a unit of resampling in two (but for the first). */
export function firstItems(items: readonly BenchmarkItem[], limit: number): BenchmarkItem[] {
  const sizes = new Map<string, number>()
  for (const { unit } of items) sizes.set(unit, (sizes.get(unit) ?? 0) + 1)
  const taken = new Set<string>()
  let count = 0
  for (const [unit, size] of sizes) {
    if (taken.size && count + size > limit) break
    taken.add(unit)
    count += size
  }
  return items.filter(({ unit }) => taken.has(unit))
}

/** The items with another limit of tokens for an answer; as they are without one. */
export const withMaxTokens = (items: readonly BenchmarkItem[], maxTokens: number | undefined): BenchmarkItem[] =>
  items.map((item) => (maxTokens ? { ...item, maxTokens } : item))

/** What stands for an answer that is yet to be made in a plan. */
const unknownAnswer = "[the answer]"

/**
 * What a run would ask, without asking: numbers of calls and tokens, and the first prompts. Questions that depend on a
 * reply are taken to be asked; repeated tries are not counted.
 */
export async function benchmarkPlan(
  benchmark: Benchmark,
  items: readonly BenchmarkItem[],
  answers?: ReadonlyMap<string, readonly string[]>,
): Promise<string> {
  const { judge, requests } = silentJudge()
  const answered = answers ? items.filter(({ id }) => answers.has(id)) : items
  if (benchmark.judged) {
    for (const item of answered) {
      await benchmark.collect(item, answers?.get(item.id) ?? item.turns.map(() => unknownAnswer), judge)
    }
  }
  const tokensOf = (messages: readonly Message[]) => sum(messages.map(({ content }) => estimateTokens(content)))
  const count = (value: number) => value.toLocaleString("en")
  const turns = items.flatMap((item) => item.turns.map((text) => ({ text, most: item.maxTokens })))
  const promptTokens = count(sum(turns.map(({ text }) => estimateTokens(text))))
  const judgeTokens = count(sum(requests.map(({ messages }) => tokensOf(messages))))
  const replyTokens = count(sum(requests.map(({ maxTokens }) => maxTokens)))
  const answering = answers
    ? `answers: ${count(answered.length)} of ${count(items.length)} items, made elsewhere`
    : `answers: ${count(turns.length)} calls, about ${promptTokens} tokens of prompts, ` +
      `at most ${count(sum(turns.map(({ most }) => most)))} tokens of answers`
  const judging = benchmark.judged
    ? `judge: ${count(requests.length)} calls, about ${judgeTokens} tokens of prompts` +
      `${answers ? "" : " without the answers"}, at most ${replyTokens} of replies`
    : "judge: none needed"
  const prompts = (answers ? [] : turns.slice(0, 2).map(({ text }) => `--- a prompt to answer\n${text}`)).concat(
    requests.slice(0, 3).map(({ messages, temperature, maxTokens }) => {
      const head = `--- to the judge, temperature ${temperature}, at most ${maxTokens} tokens`
      return [head, ...messages.map(({ role, content }) => `[${role}] ${content}`)].join("\n")
    }),
  )
  return [`${benchmark.name}: ${count(items.length)} items`, answering, judging, ...prompts].join("\n")
}
