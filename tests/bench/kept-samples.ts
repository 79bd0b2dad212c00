/**
 * Samples of runs for notebook 08: what failed and why, edits, pairs, and answers with their verdicts.
 *
 *     npx tsx tests/bench/kept-samples.ts RUN... data/results/checkable-smollm2.samples.json
 */
import { writeAtomic } from "../../lib/data/files"
import { readRun } from "../../lib/report/report-data"
import type { Sample } from "../../lib/report/samples"

/** Samples of each stage and verdict, at most. */
const MOST = 2

async function main(): Promise<void> {
  const paths = process.argv.slice(2)
  const out = paths.pop()
  if (!out?.endsWith(".json") || !paths.length)
    throw new Error("give one run folder or more, and the .json file to write")
  const runs = []
  for (const path of paths) {
    const { manifest = {}, config = {}, stages, samples, corrupted } = await readRun(path)
    const groups = new Map<string, Sample[]>()
    for (const sample of samples) {
      const name = `${sample.stage}\n${sample.verdict}`
      groups.set(name, [...(groups.get(name) ?? []), sample])
    }
    runs.push({
      command: manifest.command,
      commit: manifest.commit,
      machine: manifest.machine,
      done_by: config.stages === "world" ? "rules" : "the model",
      stages,
      edits: corrupted.slice(0, 4).map(({ instruction, constraints, edits }) => ({ instruction, constraints, edits })),
      samples: [...groups.values()].flatMap((group) => group.slice(0, MOST)),
    })
  }
  await writeAtomic(out, `${JSON.stringify({ runs }, null, 2)}\n`)
  console.log(`${out}: ${runs.map(({ samples }) => `${samples.length} samples`).join(", ")}`)
}

main()
