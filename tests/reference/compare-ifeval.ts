// Compares our IFEval checks with the verdicts that tests/reference/ifeval.py wrote:
//   npx tsx tests/reference/compare-ifeval.ts cases CASES.jsonl [PUNKT_FOLDER]
//   npx tsx tests/reference/compare-ifeval.ts answers DATA.jsonl ANSWERS.jsonl
// PUNKT_FOLDER is NLTK's tokenizers/punkt_tab/english: then sentences are parted with all that its model knows instead of
// with our list of the commonest words, so that what is left are faults of the algorithm.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Scoring } from "../../lib/eval/benchmark"
import { checks } from "../../lib/eval/ifeval/checks"
import { model, type PunktModel } from "../../lib/eval/ifeval/english"
import { ifeval } from "../../lib/eval/ifeval/ifeval"
import { loadLanguages } from "../../lib/eval/ifeval/language"
import { strip } from "../../lib/eval/ifeval/python"

const scoring: Scoring = "official"
const rows = <Row>(file: string) =>
  readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line)
    .map((line) => JSON.parse(line) as Row)

/** NLTK's parameters. Bits of an orthographic context: 2, 4, 8 capital and 16, 32, 64 small, at the start, inside, unknown. */
function readModel(folder: string): PunktModel {
  const lines = (name: string) => readFileSync(join(folder, name), "utf8").split("\n")
  const contexts = lines("ortho_context.tab").map((line): [string, number] => {
    const [word = "", bits] = line.split("\t")
    return [word, Number(bits)]
  })
  const where = (holds: (bits: number) => boolean) =>
    new Set(contexts.filter(([, bits]) => holds(bits)).map(([word]) => word))
  return {
    abbreviations: new Set(lines("abbrev_types.txt")),
    collocations: new Set(lines("collocations.tab").map((line) => line.replace("\t", " "))),
    starters: new Set(lines("sent_starters.txt")),
    ordinary: where((bits) => (bits & 112) > 0),
    capitalised: where((bits) => (bits & 4) > 0),
    small: where((bits) => (bits & 16) > 0 && (bits & 14) === 0),
  }
}

async function compareCases(file: string, punkt?: string) {
  if (punkt) Object.assign(model, readModel(punkt))
  interface Case {
    id: string
    kwargs: Record<string, unknown>
    text: string
    verdict: boolean | null
  }
  const counts = new Map<string, [cases: number, wrong: number]>()
  let unseeded = 0
  for (const { id, kwargs, text, verdict } of rows<Case>(file)) {
    if (verdict === null) {
      unseeded++
      continue
    }
    const ours = strip(text) !== "" && checks[id]!.follows(text, kwargs, scoring)
    const [cases, wrong] = counts.get(id) ?? [0, 0]
    counts.set(id, [cases + 1, wrong + Number(ours !== verdict)])
    if (ours !== verdict)
      console.log(id, JSON.stringify(kwargs).slice(0, 200), JSON.stringify(text).slice(0, 400), verdict)
  }
  const all = [...counts.values()]
  const sum = (column: 0 | 1) => all.reduce((total, row) => total + row[column], 0)
  console.log(`${sum(0)} cases, ${sum(1)} disagreements, ${unseeded} unseeded left out`)
  for (const [id, [cases, wrong]] of counts) if (wrong) console.log(`  ${id}: ${wrong} of ${cases}`)
}

async function compareAnswers(data: string, file: string) {
  interface Answer {
    key: number
    response: string
    prompt: [boolean, boolean]
    instructions: [boolean, boolean][]
  }
  const answers = new Map(rows<Answer>(file).map((row) => [row.key, row]))
  const items = await ifeval.load(data)
  const official = items.map(({ data: { key, instructions } }) =>
    answers.get(key)!.instructions.map(([strict, loose], i) => ({ id: instructions[i]!.id, strict, loose })),
  )
  const ours = items.map((item) => ifeval.score(item, [answers.get(item.data.key)!.response], null, scoring))
  ours.forEach((result, i) => {
    result.forEach(({ id, strict, loose }, j) => {
      const other = official[i]![j]!
      if (strict !== other.strict || loose !== other.loose) console.log(items[i]!.id, id, { strict, loose }, other)
    })
  })
  const [a, b] = [ifeval.figures(official, scoring), ifeval.figures(ours, scoring)]
  for (const name of Object.keys(a).slice(0, 4)) console.log(`${name}: lm-eval ${a[name]}, ours ${b[name]}`)
}

async function main([command, first = "", second]: string[]) {
  await loadLanguages()
  if (command === "cases") await compareCases(first, second)
  else await compareAnswers(first, second ?? "")
}

void main(process.argv.slice(2))
