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
import { useBackend } from "../device/tf"
import { describeModel } from "../engine/description"
import { InputError } from "../errors"
import { readAdapter, writeAdapter } from "../model/adapter"
import { mergeAdapter } from "../model/merge"
import { preferenceOf } from "../musc/respond"
import { type WeightingName, weightings } from "../musc/weigh"
import { modelFolder } from "../runs/model"
import { encodePrompt } from "../text/chat"
import { stoppable } from "./support"

const targets = {
  pairs: ["trl", "llama-factory"],
  weights: ["musc-tdpo"],
  adapter: ["peft"],
  merged: ["hf", "gguf-ready"],
} as const
type Kind = keyof typeof targets

interface Options {
  to?: string
  out: string
  model?: string
  base?: string
  weighting?: WeightingName
  dtype?: "bf16" | "f32" | "f16"
}

export function register(program: Command): void {
  program
    .command("export")
    .description("Write pairs, token weights, an adapter or a merged model for other programs.")
    .argument("<kind>", "pairs, weights, adapter or merged")
    .argument(
      "<from>",
      "rows of `musc respond` or `musc weigh` (pairs, weights), or an adapter's folder (adapter, merged)",
    )
    .requiredOption("-o, --out <path>", "new file (pairs, weights) or folder (adapter, merged)")
    .option(
      "--to <form>",
      "trl (default) or llama-factory for pairs, musc-tdpo for weights, peft for adapter, hf (default) or gguf-ready for merged",
    )
    .option("--model <model>", "weights, merged: the model that weighed the pairs, or the adapter's base model")
    .option("--base <name>", "adapter: name or path of the base model for AutoPeftModel, e.g. Qwen/Qwen2.5-7B-Instruct")
    .addOption(
      new Option("--weighting <name>", "weights: the weighting to write")
        .choices(Object.keys(weightings))
        .default("kl"),
    )
    .addOption(
      new Option("--dtype <type>", "merged: type of the weights (default: as in the model)").choices([
        "bf16",
        "f32",
        "f16",
      ]),
    )
    .addHelpText(
      "after",
      `
Examples:
  musc export pairs weighed.jsonl --to trl -o pairs.jsonl            {"prompt": [...], "chosen": [...], "rejected": [...]} per line
  musc export pairs weighed.jsonl --to llama-factory -o data/musc.json   with the entry for dataset_info.json
  musc export weights weighed.jsonl --model world --weighting kl -o tdpo.json   the authors' token-weighted file
  musc export adapter runs/mine/seed-0/train/musc/adapter --base Qwen/Qwen2.5-7B-Instruct -o adapter
  musc export merged runs/mine/seed-0/train/musc/adapter --model Qwen/Qwen2.5-7B-Instruct --to gguf-ready -o merged

In the other direction, \`musc train FILE\` reads TRL, Alpaca and ShareGPT ranking files and the token-weighted file.`,
    )
    .action(exportCommand)
}

async function exportCommand(kind: string, from: string, options: Options): Promise<void> {
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
  if (existsSync(options.out)) {
    throw new InputError("must be a new file or folder, got one that exists; choose another name", {
      file: options.out,
    })
  }
  mkdirSync(dirname(options.out), { recursive: true })
  if (known === "pairs") await exportPairs(from, to, options.out)
  if (known === "weights") await exportWeights(from, options)
  if (known === "adapter") await exportAdapter(from, options)
  if (known === "merged") await exportMerged(from, to, options)
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

async function exportWeights(from: string, { out, model, weighting = "kl" }: Options): Promise<void> {
  if (!model)
    throw new InputError("must name the model that weighed the pairs (its tokenizer is needed), got nothing", {
      field: "--model",
    })
  const { tokenizer } = describeModel(await modelFolder(model, { settingsOnly: true }))
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
    const pair = preferenceOf(parsed)
    if (!sharesFirstWeight(weights)) zeroed++
    records.push(toTokenWeighted({ ...pair, weights, promptTokens: encodePrompt(tokenizer, pair.prompt).length }))
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

async function exportMerged(from: string, to: string, { out, model, dtype }: Options): Promise<void> {
  if (!model)
    throw new InputError("must name the adapter's base model, got nothing; give --model", { field: "--model" })
  await stoppable(async (signal, show) => {
    const folder = await modelFolder(model, { signal, onProgress: show.progress })
    show.note((await useBackend()).reason)
    await mergeAdapter(folder, from, out, {
      dtype: dtype?.toUpperCase() as "BF16" | "F32" | "F16" | undefined,
      onNote: show.note,
      onTensor: (done, total) => show.progress({ stage: "merge", unit: "tensors", done, total }),
    })
  })
  console.log(out)
  if (to === "gguf-ready") console.log(`next, with llama.cpp: python convert_hf_to_gguf.py ${out} --outtype auto`)
}

const tell = (out: string, pairs: number, failed: number) =>
  console.log(`${out}: ${pairs} pairs${failed ? `; ${failed} failed rows left out` : ""}`)
