import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { results as resultsSchema } from "../../lib/data/results"
import { saveFigure } from "../../lib/plots/picture"
import { readStudy } from "../../lib/report/study-record"
import { mainFigure } from "../../lib/report/study-report"
import { commit, machine } from "../../lib/runs/origin"

/**
 * `npx tsx tests/bench/record.ts RUN NAME`: keeps the results of a run or study under data/results: NAME.json with
 * command, commit and machine, NAME.md and NAME.csv as they are (and NAME-benchmarks.md and .csv where benchmarks ran),
 * and the main figure as NAME.png. Call it at the commit that made the run.
 */
async function main([run, name]: string[]): Promise<void> {
  if (!run || !name) throw new Error("usage: npx tsx tests/bench/record.ts RUN NAME")
  const json = (file: string) => JSON.parse(readFileSync(join(run, file), "utf8"))
  const { command, ...made } = json(existsSync(join(run, "study.json")) ? "study.json" : "manifest.json")
  const { backend, started, finished, model, axis, variants } = made
  const all = resultsSchema.parse(json("results.json"))
  const out = join("data/results", name)
  const origin = { command, commit: commit(), machine: machine(), backend, started, finished, model, axis, variants }
  writeFileSync(`${out}.json`, `${JSON.stringify({ ...origin, ...all }, null, 1)}\n`)
  for (const kind of ["md", "csv"]) {
    cpSync(join(run, `results.${kind}`), `${out}.${kind}`)
    const benchmarks = join(run, `benchmarks.${kind}`)
    if (existsSync(benchmarks)) cpSync(benchmarks, `${out}-benchmarks.${kind}`)
  }
  await saveFigure(mainFigure(all, readStudy(run)), `${out}.png`)
}

main(process.argv.slice(2))
