import { existsSync, mkdirSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { type Command, Option } from "commander"
import { writeAtomic } from "../data/files"
import { readRecords } from "../data/json-array"
import { isJsonObject, readJsonFile } from "../data/json-file"
import { objectOf, parseRecord } from "../data/jsonl"
import { pairForm, toFilePair } from "../data/pair-files"
import {
  datasetInfo,
  jsonArray,
  type Preference,
  sharesFirstWeight,
  toRanking,
  toTokenWeighted,
  toTrl,
} from "../data/preferences"
import { pairRow, weighedRow } from "../data/schema"
import { describeModel } from "../engine/description"
import { InputError } from "../errors"
import { readAdapter, writeAdapter } from "../model/adapter"
import type { FloatDtype } from "../model/floats"
import { preferenceOf } from "../musc/respond"
import { type WeightingName, weightings } from "../musc/weigh"
import { modelFolder } from "../runs/model"
import { type CutOff, encodePairs } from "../train/pairs"
import { merge } from "./merge"
import { onOff } from "./servers"

const targets = {
  pairs: ["trl", "llama-factory"],
  weights: ["musc-tdpo"],
  adapter: ["peft"],
} as const
type Kind = keyof typeof targets

interface Options {
  to?: string
  out: string
  model?: string
  base?: string
  weighting?: WeightingName
  thinking?: boolean
  dtype?: Lowercase<FloatDtype>
}

/** What each kind reads beside --out and --to. */
const reads: Readonly<Record<Kind, readonly (keyof Options)[]>> = {
  pairs: [],
  weights: ["model", "weighting", "thinking"],
  adapter: ["base"],
}

export function register(program: Command): void {
  program
    .command("export")
    .description(
      "Write pairs, token weights or an adapter for other programs. `musc merge` writes a whole model, adapter included.",
    )
    .argument("<kind>", "pairs, weights or adapter")
    .argument("<from>", "rows of `musc respond` or `musc weigh` (pairs, weights), or an adapter's folder (adapter)")
    .requiredOption("-o, --out <path>", "new file (pairs, weights) or folder (adapter)")
    .option("--to <form>", "trl (default) or llama-factory for pairs, musc-tdpo for weights, peft for adapter")
    .option("--model <model>", "weights: the model that weighed the pairs")
    .option("--base <name>", "adapter: name or path of the base model for AutoPeftModel, e.g. Qwen/Qwen2.5-7B-Instruct")
    .addOption(
      new Option("--weighting <name>", "weights: the weighting to write (default: kl)").choices(
        Object.keys(weightings),
      ),
    )
    .option("--thinking <on|off>", "weights: thinking on or off, where the pairs were weighed so", onOff)
    .addOption(new Option("--dtype <type>", "of the former kind merged").choices(["bf16", "f32", "f16"]).hideHelp())
    .addHelpText(
      "after",
      `
Examples:
  musc export pairs weighed.jsonl --to trl -o pairs.jsonl            {"prompt": [...], "chosen": [...], "rejected": [...]} per line
  musc export pairs weighed.jsonl --to llama-factory -o data/musc.json   with the entry for dataset_info.json
  musc export weights weighed.jsonl --model world --weighting kl -o tdpo.json   the authors' token-weighted file
  musc export adapter runs/mine/seed-0/train/musc/adapter --base Qwen/Qwen2.5-7B-Instruct -o adapter

In the other direction, \`musc train FILE\` reads TRL, Alpaca and ShareGPT ranking files and the token-weighted file.`,
    )
    .action(exportCommand)
}

async function exportCommand(kind: string, from: string, options: Options): Promise<void> {
  if (kind === "merged") return mergeInstead(from, options)
  const known = (Object.keys(targets) as Kind[]).find((name) => name === kind)
  if (!known)
    throw new InputError(`must be one of ${Object.keys(targets).join(", ")}, got ${kind}; choose one`, {
      field: "kind",
    })
  const forms: readonly string[] = targets[known]
  const to = options.to ?? forms[0]!
  if (!forms.includes(to)) {
    throw new InputError(`must be one of ${forms.join(", ")} for ${known}, got ${to}; choose one`, { field: "--to" })
  }
  const unread = (["model", "base", "weighting", "thinking", "dtype"] as const).find(
    (name) => options[name] !== undefined && !reads[known].includes(name),
  )
  if (unread) {
    throw new InputError(`has no effect on ${known}, got ${options[unread]}; leave it out`, { field: `--${unread}` })
  }
  if (existsSync(options.out)) {
    throw new InputError("must be a new file or folder, got one that exists; choose another name", {
      file: options.out,
    })
  }
  mkdirSync(dirname(options.out), { recursive: true })
  if (known === "pairs") await exportPairs(from, to, options.out)
  if (known === "weights") await exportWeights(from, options)
  if (known === "adapter") await exportAdapter(from, options)
}

/** What `merged` did as a kind of export is a command of its own. */
async function mergeInstead(adapter: string, { model, out, to, ...options }: Options): Promise<void> {
  console.error("note: `musc export merged` is now called `musc merge`, whose --adapter names the folder")
  if (to !== undefined && !["hf", "gguf-ready"].includes(to))
    throw new InputError(`must be hf or gguf-ready for merged, got ${to}; leave it out`, { field: "--to" })
  if (!model)
    throw new InputError("must name the adapter's base model, got nothing; give --model", { field: "--model" })
  await merge({ ...options, model, adapter, out })
}

/** The pairs of a file, ours or another program's; failed rows are counted. */
async function readPreferences(file: string): Promise<{ pairs: Preference[]; failed: number }> {
  const pairs: Preference[] = []
  let failed = 0
  let record = 0
  for await (const { value, place } of readRecords(file)) {
    record++
    const row = objectOf(value, place)
    if (isJsonObject(row.failure)) failed++
    else if (pairForm(row) === "musc rows") pairs.push(preferenceOf(parseRecord(pairRow, row, place)))
    else pairs.push(toFilePair(row, { ...place, record }))
  }
  return { pairs, failed }
}

async function exportPairs(from: string, to: string, out: string): Promise<void> {
  const { pairs, failed } = await readPreferences(from)
  if (to === "trl") {
    await writeAtomic(
      out,
      pairs.map((pair) => `${JSON.stringify(toTrl(pair))}\n`),
    )
    tell(out, pairs.length, failed)
    return
  }
  const records = pairs.map(toRanking)
  await writeAtomic(out, jsonArray(records))
  tell(out, records.length, failed)
  const has = (field: "system" | "history") => records.some((record) => field in record)
  const name = basename(out).replace(/\.\w+$/, "")
  const entry = datasetInfo(name, basename(out), { system: has("system"), history: has("history") })
  console.log(`entry for dataset_info.json:\n${JSON.stringify(entry, null, 2)}`)
}

async function exportWeights(from: string, { out, model, weighting = "kl", thinking }: Options): Promise<void> {
  if (!model)
    throw new InputError("must name the model that weighed the pairs (its tokenizer is needed), got nothing", {
      field: "--model",
    })
  const { tokenizer } = describeModel(await modelFolder(model, { settingsOnly: true }), { thinking })
  const records: object[] = []
  let [failed, zeroed] = [0, 0]
  for await (const { value, place } of readRecords(from)) {
    const row = objectOf(value, place)
    if (isJsonObject(row.failure)) {
      failed++
      continue
    }
    const parsed = parseRecord(weighedRow, row, place)
    const weights = parsed.weights[weighting]
    if (!weights) {
      const got = Object.keys(parsed.weights).join(", ") || "none"
      throw new InputError(
        `must hold weights of ${weighting}, got ${got}; weigh with --set weightings=${weighting}`,
        place,
      )
    }
    const pair = { ...preferenceOf(parsed), weights }
    // Another tokenizer, template or thinking setting than those of the weigh stage would shift all weights.
    const refused: CutOff = { leftOut: 0, shortened: 0 }
    const [item] = encodePairs(tokenizer, [{ id: parsed.id, ...pair }], Number.POSITIVE_INFINITY, refused)
    if (!item)
      throw new InputError(`must be a pair that the model can read, got ${refused.refusal}; leave it out`, place)
    if (!sharesFirstWeight(weights)) zeroed++
    records.push(toTokenWeighted({ ...pair, promptTokens: item.prompt.length }))
  }
  await writeAtomic(out, jsonArray(records))
  tell(out, records.length, failed)
  if (zeroed)
    console.log(
      `note: in ${zeroed} pairs the first tokens get weight 0: the file has one weight for both answers, ` +
        "and theirs differ",
    )
}

async function exportAdapter(from: string, { out, base }: Options): Promise<void> {
  const adapter = readAdapter(from)
  const named = base ?? readJsonFile(join(from, "adapter_config.json")).base_model_name_or_path
  if (typeof named !== "string" || !named) {
    throw new InputError("must name the base model, got nothing; give --base org/name", { field: "--base" })
  }
  await writeAdapter(out, adapter, named)
  console.log(`${out}: PEFT adapter of ${named}`)
}

const tell = (out: string, pairs: number, failed: number) =>
  console.log(`${out}: ${pairs} pairs${failed ? `; ${failed} failed rows left out` : ""}`)
