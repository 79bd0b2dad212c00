import type { z } from "zod"
import { show } from "../data/json-file"

/** What is wrong with settings, in words. */

/** Options that are easily taken for settings, and what to write instead. */
const otherwise: Readonly<Record<string, string>> = {
  limit: "set instructions and evalInstructions, or give the option --limit",
  out: "give the option --out",
  log: "give the option --log",
  torch: "give the option --torch",
  endpoint: "give the option --endpoint",
  serve: "give the option --serve",
  judge: "set evalJudgeEndpoint, or give the option --judge",
  data: "set benchmarkData",
}

/** Settings by the names that Transformers, PEFT, TRL and LLaMA-Factory have for them, without case and underscores. */
export const namesElsewhere: Readonly<Record<string, string>> = {
  learningrate: "lr",
  learnrate: "lr",
  sftlearningrate: "sftLr",
  warmupratio: "warmup",
  savesteps: "checkpointEvery",
  numtrainepochs: "epochs",
  numepochs: "epochs",
  perdevicetrainbatchsize: "batchSize",
  lorar: "rank",
  lorarank: "rank",
  loraalpha: "alpha",
  losstype: "loss",
  maxlength: "cutoff",
  cutofflen: "cutoff",
  modelnameorpath: "model",
  rpoalpha: "sftWeight",
  prefbeta: "beta",
  randomseed: "seed",
}

/** The setting that a wrong name stands for most likely. */
function intended(key: string, settings: readonly string[]): string | undefined {
  const plain = key.replaceAll(/[_-]/g, "").toLowerCase()
  const near = nearest(plain, [...settings, ...Object.keys(namesElsewhere)])
  return near && Object.hasOwn(namesElsewhere, near) ? namesElsewhere[near] : near
}

/** Words for zod's short ones. */
const kinds: Readonly<Record<string, string>> = { int: "a whole number", array: "a list", boolean: "true or false" }
const bounds: Readonly<Record<string, string>> = { ">": "above ", ">=": "at least ", "<": "below ", "<=": "at most " }

/**
 * What is wrong with a setting, as zod found it among the `values`. One line a problem: field, rule, value received,
 * what the field means.
 */
export function explain(
  issue: z.core.$ZodIssue,
  values: Readonly<Record<string, unknown>>,
  meanings: Readonly<Record<string, string>>,
): string[] {
  if (issue.code === "unrecognized_keys") return issue.keys.map((key) => unknown(key, Object.keys(meanings)))
  const key = issue.path[0] as string
  const rule = issue.message
    .replace(/^Invalid (input|option): /, "")
    .replace(/^Too (small|big): expected \w+ to (be|have) /, "must $2 ")
    .replace(/, received .*/, "")
    .replace(/^expected one of /, "must be one of ")
    .replace(/^expected (int|array|\w+)/, (_, kind: string) => `must be ${kinds[kind] ?? `a ${kind}`}`)
    .replace(/([<>]=?)(?=\d)/, (sign) => bounds[sign]!)
  return [`${key}: ${rule}, got ${show(values[key])}; ${meanings[key]}`]
}

function unknown(key: string, settings: readonly string[]): string {
  const near = intended(key, settings)
  const meant = near ? `did you mean ${near}?` : "see musc run --help"
  const remedy = Object.hasOwn(otherwise, key) ? otherwise[key] : meant
  return `${key}: there is no such setting; ${remedy}`
}

/** The name of a list that a mistyped one is closest to, if any is close. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  const ranked = names
    .map((name) => ({ name, distance: editDistance(word.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0]
  return ranked && ranked.distance <= Math.max(2, word.length / 3) ? ranked.name : undefined
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const above = row
    row = [i]
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + Number(a[i - 1] !== b[j - 1])))
    }
  }
  return row[b.length]!
}
