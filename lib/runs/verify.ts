import { existsSync, lstatSync, readdirSync, readFileSync, statSync } from "node:fs"
import { dirname, join } from "node:path"
import { z } from "zod"
import { currentOf } from "../config/current"
import { damageOf, sha256File } from "../data/files"
import { readJsonFile, show } from "../data/json-file"
import { parseRecord, readJsonl } from "../data/jsonl"
import { evalItem, results as resultsSchema } from "../data/results"
import { InputError, MuscError } from "../errors"
import { reportPage } from "../report/report"
import { readRun } from "../report/report-data"
import { readStudy } from "../report/study-record"
import { filesOfRun, versions } from "./manifest"
import { type Graded, resultsOf } from "./results"
import { stageState } from "./store"
import { trainingState } from "./train-stage"

/** What was found in a folder. */
export interface Verdict {
  folder: string
  /** files whose hash was compared */
  files: number
  /** what is not as it should be, a line each */
  problems: string[]
  /** what could not be checked */
  notes: string[]
}

/**
 * Compares a run with what its records say: files with the hashes of the manifest, stages and trainings with those of
 * their key files, results with the graded answers, the report with all of them. Of a study every run is checked, and
 * of a benchmark's result folder its files. Whoever changes a file and all records of it is not found out: to know that
 * a run is the one that somebody published, compare the sha256 of `manifest.json`.
 * @throws InputError for a folder that holds none of these
 */
export async function verify(dir: string): Promise<Verdict[]> {
  const study = readStudy(dir)
  if (study) {
    const verdicts: Verdict[] = []
    for (const { name } of study.variants) verdicts.push(await verifyRun(join(dir, name)))
    const whole = newVerdict(dir)
    await compareFiles(whole, study.files, "study.json")
    return [...verdicts, whole]
  }
  return [existsSync(join(dir, "scores.json")) ? await verifyBenchmark(dir) : await verifyRun(dir)]
}

/** Where the files of a finished run differ from its manifest, a line each. A report shows such a run all the same. */
export async function changedFiles(dir: string): Promise<string[]> {
  const file = join(dir, "manifest.json")
  if (!existsSync(file)) return []
  const verdict = newVerdict(dir)
  await compareFiles(verdict, readJsonFile(file).files, "manifest.json")
  return verdict.problems
}

/** A verdict without a finding. */
const newVerdict = (folder: string): Verdict => ({ folder, files: 0, problems: [], notes: [] })

const isFile = (path: string) => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false

const hashes = z.record(z.string(), z.string())

/** A part of the check; a file that cannot be read is a finding, and the other parts go on. */
async function findingIn<T>({ problems }: Verdict, part: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await part()
  } catch (error) {
    if (!(error instanceof MuscError)) throw error
    if (!problems.includes(error.message)) problems.push(error.message)
    return undefined
  }
}

/** Compares files with their hashes, by path in the folder. */
async function compareFiles(verdict: Verdict, list: unknown, record: string): Promise<string[]> {
  const files = hashes.safeParse(list).data
  if (!files) {
    verdict.problems.push(`${record} names no hashes`)
    return []
  }
  for (const [file, hash] of Object.entries(files)) {
    const path = join(verdict.folder, file)
    if (/^[/\\]|^\w:|(^|[/\\])\.\.([/\\]|$)/.test(file)) verdict.problems.push(`${record} names ${show(file)}, outside`)
    else if (!isFile(path)) verdict.problems.push(`${file} is missing`)
    else if ((await sha256File(path)) !== hash) verdict.problems.push(`${file} is not the one of ${record}`)
    verdict.files++
  }
  return Object.keys(files)
}

async function verifyRun(dir: string): Promise<Verdict> {
  const verdict = newVerdict(dir)
  const { problems, notes } = verdict
  const data = await readRun(dir).catch((error) => {
    if (!(error instanceof MuscError) || !existsSync(join(dir, "manifest.json"))) throw error
    problems.push(error.message)
    return undefined
  })
  const hasManifest = existsSync(join(dir, "manifest.json"))
  const manifest = hasManifest ? await findingIn(verdict, () => readJsonFile(join(dir, "manifest.json"))) : undefined
  if (!hasManifest) problems.push("manifest.json is missing: the run has not finished")
  const listed = manifest ? await compareFiles(verdict, manifest.files, "manifest.json") : []
  const now = currentOf(data?.config)
  for (const file of filesOfRun(dir)) {
    // A file of one's own does no harm outside the stages.
    const added = manifest && now.file(file) && !listed.includes(file)
    if (added) (file.startsWith("seed-") ? problems : notes).push(`${file} is not in manifest.json`)
    if (now.file(file) && /(^|[/.])key\.json$/.test(file)) await findingIn(verdict, () => compareKey(verdict, file))
  }
  if (!manifest || !data) return verdict
  if (manifest.musc !== versions().musc) {
    notes.push(
      `results and report were not computed again: made by musc ${show(manifest.musc)}, this is ${versions().musc}`,
    )
    return verdict
  }
  await findingIn(verdict, () => compareResults(verdict, data.config ?? {}))
  const report = join(dir, "report.html")
  if (lstatSync(report, { throwIfNoEntry: false }) && !isFile(report)) problems.push("report.html is no file")
  const page = isFile(report) ? readFileSync(report, "utf8") : undefined
  // A copy may lie under another name, which stands in the page.
  const name =
    /<title>MuSC run (.*?)<\/title>/.exec(page ?? "")?.[1]?.replace(/&(amp|lt|gt|quot|#39);/g, unescaped) ?? ""
  if (page !== undefined && page !== reportPage({ ...data, name }))
    problems.push("report.html is not the one of these files; run `musc report` to rewrite it")
  return verdict
}

const unescaped = (_: string, name: string) => ({ amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'" })[name] ?? ""

/** A key file says what its stage or training was finished with. */
async function compareKey(verdict: Verdict, file: string): Promise<void> {
  const path = join(verdict.folder, file)
  const json = readJsonFile(path)
  const training = /(^|\/)key\.json$/.test(file)
  const state = (training ? trainingState : stageState).safeParse(json)
  if (!state.success) {
    verdict.problems.push(`${file} is no key file of this version`)
    return
  }
  if (!state.data.complete) verdict.problems.push(`${file}: not finished`)
  else if ("sha256" in state.data) {
    const output = file.replace(/\.key\.json$/, ".jsonl")
    const damage = await damageOf(join(verdict.folder, output), state.data)
    if (damage) verdict.problems.push(`${output} ${damage} (${file})`)
  } else {
    for (const [name, print] of Object.entries(("files" in state.data && state.data.files) || {})) {
      const damage = await damageOf(join(dirname(path), name), print)
      if (damage) verdict.problems.push(`${join(dirname(file), name)} ${damage} (${file})`)
    }
  }
}

/** Rates and differences, computed again from the graded answers. */
async function compareResults(verdict: Verdict, config: Record<string, unknown>): Promise<void> {
  const { folder, problems } = verdict
  const file = join(folder, "results.json")
  if (!existsSync(file)) return
  const parsed = z
    .object({
      seed: z.int(),
      repeat: z.int(),
      methods: z.array(z.string()),
      evalTemperatures: z.array(z.number()),
      bootstrapSamples: z.int(),
    })
    .safeParse(config)
  if (!parsed.success) {
    problems.push("config.json does not say what was evaluated")
    return
  }
  const { seed, repeat, methods, evalTemperatures, bootstrapSamples: samples } = parsed.data
  const graded: Graded[] = []
  for (let own = seed; own < seed + repeat; own++)
    for (const method of methods)
      for (const temperature of evalTemperatures) {
        const answers = join(folder, `seed-${own}/evaluate/${method}-T${temperature}.jsonl`)
        if (!existsSync(answers)) continue
        const items: Graded["items"] = []
        for await (const item of readJsonl(answers, evalItem, { allowEmpty: true })) items.push(item)
        graded.push({ method, temperature, items })
      }
  const again = resultsOf(graded, [], { samples, seed })
  const recorded = parseRecord(resultsSchema, readJsonFile(file), { file })
  for (const part of ["methods", "differences"] as const)
    if (JSON.stringify(again[part]) !== JSON.stringify(recorded[part]))
      problems.push(`results.json: ${part} do not follow from the graded answers`)
}

async function verifyBenchmark(dir: string): Promise<Verdict> {
  const verdict = newVerdict(dir)
  const scores = readJsonFile(join(dir, "scores.json"))
  await compareFiles(verdict, scores.files, "scores.json")
  for (const file of readdirSync(dir).filter((name) => name.endsWith(".key.json")))
    await findingIn(verdict, () => compareKey(verdict, file))
  return verdict
}

/** A verdict in words. */
export function verdictText({ folder, files, problems, notes }: Verdict): string {
  const head = problems.length ? `${folder}: ${problems.length} problems` : `${folder}: ${files} files are as recorded`
  return [head, ...problems.map((line) => `  - ${line}`), ...notes.map((line) => `  note: ${line}`)].join("\n")
}

/** @throws InputError when anything is not as it should be */
export function requireSound(verdicts: readonly Verdict[]): void {
  const bad = verdicts.filter(({ problems }) => problems.length)
  if (!bad.length) return
  const count = bad.reduce((sum, { problems }) => sum + problems.length, 0)
  throw new InputError(
    `must be as it was recorded, got ${count} differences, listed above; run the same command again to mend a run`,
    {
      file: bad[0]!.folder,
    },
  )
}
