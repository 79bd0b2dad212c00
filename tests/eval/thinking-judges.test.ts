import { expect, it } from "vitest"
import { scripted } from "../../lib/engine/scripted"
import { alpacaEval } from "../../lib/eval/alpaca-eval"
import type { Benchmark, BenchmarkItem } from "../../lib/eval/benchmark"
import { cfbench } from "../../lib/eval/cfbench"
import { complexbench } from "../../lib/eval/complexbench/complexbench"
import { followbench } from "../../lib/eval/followbench/followbench"
import { judgeOf } from "../../lib/eval/judge"

/** Thoughts that hold verdicts of every form, all of them other than those of the replies. */
const thoughts = `<think>
['NO', 'NO'] or NO? 答案：否 评分对象：None
守时\t0

简短\t0
M</think>

`

const cases: [name: string, benchmark: Benchmark<never, never, unknown>, data: object, reply: string][] = [
  [
    "followbench",
    followbench as unknown as Benchmark<never, never, unknown>,
    { language: "en", category: "style", source: "made", exampleId: 1, level: 2, target: "", path: ["a", "b", "c"] },
    "Both hold.\n['YES', 'YES']",
  ],
  [
    "cfbench",
    cfbench as unknown as Benchmark<never, never, unknown>,
    {
      idx: 0,
      prompt: "p",
      gold: "",
      split: "easy",
      criteria: [
        ["守时", "主需", "", ""],
        ["简短", "次需", "", ""],
      ],
    },
    "守时\t1\n\n简短\t1",
  ],
  [
    "complexbench, a question",
    complexbench as unknown as Benchmark<never, never, unknown>,
    complexRecord(null),
    "分析：好\n答案：是",
  ],
  [
    "complexbench, a rule",
    complexbench as unknown as Benchmark<never, never, unknown>,
    complexRecord("startswith:晓"),
    "分析：开头\n评分对象：晓来",
  ],
  [
    "alpaca-eval",
    alpacaEval as unknown as Benchmark<never, never, unknown>,
    { dataset: "d", instruction: "Sing.", output: "base", generator: "g", gamed: null },
    "m",
  ],
]

function complexRecord(rule: string | null) {
  const question = { question: "q", rule, constraint_dimensions: [], composition_types: [], dep: [] }
  const labels = { main_id: 0, group: null, task_types: "t", composition_types: [], category: "c" }
  return { ...labels, instruction: "i", scoring_questions: [question] }
}

it.each(cases)(
  "%s gives a judge that thinks aloud the verdicts that it has without its thoughts",
  async (_, benchmark, data, reply) => {
    const item = {
      id: "0",
      unit: "0",
      turns: ["p"],
      temperature: 0,
      maxTokens: 1,
      data,
    } as unknown as BenchmarkItem<never>
    const judged = async (text: string) => {
      const { judge } = judgeOf(scripted(() => text))
      const collected = await benchmark.collect(item, ["晓来"], judge)
      return (["official", "corrected"] as const).map((scoring) => benchmark.score(item, ["晓来"], collected, scoring))
    }
    const plain = await judged(reply)
    expect(await judged(thoughts + reply)).toEqual(plain)
    // and the verdicts are none of those that stand in the thoughts
    expect(plain).not.toEqual(await judged(thoughts.replace(/<\/?think>/g, "")))
  },
)
