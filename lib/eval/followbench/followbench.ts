import { mean, sum } from "../../data/numbers"
import type { Benchmark, Judgement, Scoring } from "../benchmark"
import { type Category, categories, firstVerdicts, judgeRequest, verdicts } from "./judge"
import { type FollowBenchData, loadFollowBench } from "./load"
import { ruleOf } from "./rules"

export interface FollowBenchResult {
  category: Category
  /** The group, whose five levels make one CSL. */
  group: string
  level: number
  judged: boolean
  /** All constraints satisfied; null when no reply of the judge could be read. */
  hard: 0 | 1 | null
  /** Share of the added constraints that are satisfied; `hard` where a rule decides. */
  soft: number | null
}

const levels = [1, 2, 3, 4, 5] as const
const hashes: Record<"data" | "data_zh", Record<Category, string>> = {
  data: {
    content: "dedf04579bf205c1422e18ee1033d0372b02196ca4b5e921a3a65dca714e226b",
    situation: "cab0e31e3f8dd69ba71018dde3eb63f3336b8aea6df82c7997da6abcbc159fb4",
    style: "5a9a049a24a9a53e67b4ad97f1fb7633b4629f6ce461662888804313cc90c27a",
    format: "3b93ee931186edcb4e0a5f260de18cd550586c985192da39262fd023e90d8a76",
    mixed: "eae529546e0ef6a4a4936b6221cd25da9debaf261272409ed1fd57e8260bf820",
    example: "205d10ecde31b974f0c1537be4952b5e075ae5ca58008dc08aef1c442c32bada",
  },
  data_zh: {
    content: "f0baaee245a24fe3f38e4e7bd18c44700f67557397989c46c58ab4482d46f28f",
    situation: "2bb26ae2df58d63ccfd2b512adb0c66c33f1fe5c8a1368c3c0bc9aff5d87689c",
    style: "7e9ee17fa2520c8187438fc0a66e63bc6831bf4e51c2ee6429b46b0bfdec6a27",
    format: "65400edb71326ad8e69474701ab14252c4d3d2e9b8b49643716d897967d6636e",
    mixed: "5495223e7f93d0fccc2b63ffd951b07825b1b7c82b4a009d99efae56b312dd53",
    example: "33a0f6f2b72b530de42907fbdde6947b70c7676ee6e78a9078ecd63bca97c437",
  },
}

/**
 * FollowBench (Jiang et al., ACL 2024), English and Chinese, told apart by the text of the instructions.
 *
 * Per category and level, HSR is the mean of `hard`, SSR of `soft`; CSL is the mean over groups of the number of levels
 * from 1 on that are all hard satisfied, 0 to 5. The headline figures are those of the paper: per level the mean over
 * all six categories, then over the levels. "aggregator" is what the repository's `aggregator.py` prints instead:
 * levels weighted 1 to 5 over 15, five categories, without `example`. Official code rounds CSL to .1 within each
 * category before it averages and the rates to .0001; nothing is rounded here.
 *
 * `official`: an answer on which no reply of the judge can be read counts as -1 in HSR and SSR, as in the official sums
 * (whose authors mend such replies by hand), and ends the run of levels in CSL. `corrected`: it is left out of HSR and
 * SSR, and its group out of CSL if the run of satisfied levels reaches it. Quirks of the rules stand next to the rules.
 */
export const followbench: Benchmark<FollowBenchData, Judgement, FollowBenchResult> = {
  name: "followbench",
  about: "FollowBench: instructions with one to five added constraints, 820 in English (470 judged), 790 in Chinese",
  source: {
    home: "https://github.com/YJiangcm/FollowBench",
    files: (["data", "data_zh"] as const).flatMap((folder) =>
      categories.map((category) => ({
        name: `${folder}/${category}_constraints.json`,
        url: `https://raw.githubusercontent.com/YJiangcm/FollowBench/main/${folder}/${category}_constraints.json`,
        sha256: hashes[folder][category],
      })),
    ),
    licence: "Apache-2.0",
  },
  judged: true,
  load: loadFollowBench,

  async collect({ data: { language, category, source, exampleId, level, path } }, [answer], judge) {
    if (ruleOf(category, source, exampleId, language)) return null
    const request = judgeRequest(language, category, path, answer!)
    return judge(request, ({ text, cut }) => !cut && verdicts(text, level, language, "corrected") !== undefined)
  },

  score({ unit, data: { language, category, source, exampleId, level, target } }, [answer], collected, scoring) {
    const rule = ruleOf(category, source, exampleId, language)
    const row = { category, group: unit, level, judged: !rule }
    if (rule) {
      const hard = rule(answer!, { language, level, target, scoring }) ? 1 : 0
      return { ...row, hard, soft: hard }
    }
    const found = collected && firstVerdicts(collected, level, language, scoring)
    if (!found) return { ...row, hard: null, soft: null }
    return { ...row, hard: found.every((yes) => yes) ? 1 : 0, soft: found.filter((yes) => yes).length / level }
  },

  figures(results, scoring) {
    const tables = tablesOf(results, scoring)
    const named = (name: string, rates: readonly Rates[], csl: number) => ({
      [`${name}HSR`]: mean(rates.map(({ hsr }) => hsr)),
      [`${name}SSR`]: mean(rates.map(({ ssr }) => ssr)),
      [`${name}CSL`]: csl,
      ...Object.fromEntries(rates.map(({ hsr }, index) => [`${name}HSR level ${index + 1}`, hsr])),
      ...Object.fromEntries(rates.map(({ ssr }, index) => [`${name}SSR level ${index + 1}`, ssr])),
    })
    const across = levels.map((_, index) => ({
      hsr: mean(tables.map(({ rates }) => rates[index]!.hsr)),
      ssr: mean(tables.map(({ rates }) => rates[index]!.ssr)),
    }))
    const five = tables.filter(({ category }) => category !== "example")
    const aggregate = (rate: keyof Rates) =>
      mean(five.map(({ rates }) => sum(rates.map((row, index) => row[rate] * (index + 1))) / 15))
    return Object.assign(
      named("", across, mean(tables.map(({ csl }) => csl))),
      { "aggregator HSR": aggregate("hsr"), "aggregator SSR": aggregate("ssr") },
      ...tables.map(({ category, rates, csl }) => named(`type: ${category} `, rates, csl)),
    )
  },

  notes(results, scoring) {
    const judged = results.filter((result) => result.judged)
    const unread = judged.filter(({ hard }) => hard === null).length
    const there = categories.filter((category) => results.some((result) => result.category === category))
    const groups = new Map<string, number>()
    for (const { group } of results) groups.set(group, (groups.get(group) ?? 0) + 1)
    const partial = [...groups.values()].filter((count) => count < 5).length
    return [
      "The judge prompt has the official structure in our own words",
      ...(unread
        ? [`${unread} of ${judged.length} judged answers unread: ${scoring === "official" ? "-1 each" : "left out"}`]
        : []),
      ...(there.length < 6 ? [`Headline figures over ${there.length} of 6 categories: ${there.join(", ")}`] : []),
      ...(partial ? [`Groups without all five levels, in no CSL: ${partial}`] : []),
    ]
  },
}

interface Rates {
  hsr: number
  ssr: number
}

/** Rates by level and CSL of each category that has results. A group drawn several times counts as often. */
function tablesOf(results: readonly FollowBenchResult[], scoring: Scoring) {
  const tables = new Map<Category, Totals>()
  for (const { category, group, level, hard, soft } of results) {
    const totals = tables.get(category) ?? newTotals()
    const run = totals.groups.get(group) ?? { counts: [0, 0, 0, 0, 0], hard: [0, 0, 0, 0, 0] }
    tables.set(category, totals)
    totals.groups.set(group, run)
    const at = level - 1
    run.counts[at]!++
    run.hard[at] = hard
    if (hard === null && scoring === "corrected") continue
    totals.n[at]!++
    totals.hard[at]! += hard ?? -1
    totals.soft[at]! += soft ?? -1
  }
  return categories.flatMap((category) => {
    const totals = tables.get(category)
    if (!totals) return []
    const { n, hard, soft, groups } = totals
    const rates = levels.map((_, at) => ({ hsr: hard[at]! / n[at]!, ssr: soft[at]! / n[at]! }))
    return [{ category, rates, csl: cslOf(groups, scoring) }]
  })
}

interface Run {
  counts: number[]
  hard: (0 | 1 | null)[]
}

interface Totals {
  n: number[]
  hard: number[]
  soft: number[]
  groups: Map<string, Run>
}

const newTotals = (): Totals => ({
  n: [0, 0, 0, 0, 0],
  hard: [0, 0, 0, 0, 0],
  soft: [0, 0, 0, 0, 0],
  groups: new Map(),
})

/** Mean number of levels satisfied in a row from level 1, over the groups that have all five. */
function cslOf(groups: ReadonlyMap<string, Run>, scoring: Scoring): number {
  let [total, drawn] = [0, 0]
  for (const { counts, hard } of groups.values()) {
    const times = Math.min(...counts)
    const end = hard.findIndex((value) => value !== 1)
    if (!times || (scoring === "corrected" && hard[end] === null)) continue
    total += times * (end < 0 ? 5 : end)
    drawn += times
  }
  return total / drawn
}
