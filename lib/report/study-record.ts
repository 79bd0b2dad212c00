import { existsSync } from "node:fs"
import { join } from "node:path"
import { z } from "zod"
import { readJsonFile } from "../data/json-file"
import { parseRecord } from "../data/jsonl"
import { results } from "../data/results"

/** `study.json`: what the runs of a study are, and how their methods are called in the whole. */
const studyRecord = z.looseObject({
  command: z.string(),
  files: z.record(z.string(), z.string()).optional().describe("sha256 of results and of the manifest of each run"),
  axis: z.enum(["noiseRatio", "pairs"]).optional(),
  variants: z.array(
    z.object({
      name: z.string().describe("also the folder"),
      changes: z.record(z.string(), z.unknown()),
      model: z.string(),
      methods: z.record(z.string(), z.string()).describe("name in the whole by name in the variant"),
      pairs: results.shape.pairs,
    }),
  ),
})
export type StudyRecord = z.infer<typeof studyRecord>

/** The record of a study's folder; undefined for a folder that holds none. @throws InputError for a broken one. */
export function readStudy(dir: string): StudyRecord | undefined {
  const file = join(dir, "study.json")
  return existsSync(file) ? parseRecord(studyRecord, readJsonFile(file), { file }) : undefined
}
