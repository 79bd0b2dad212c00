import { existsSync, readFileSync } from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { isJsonObject, type JsonObject, readJsonFile } from "../data/json-file"

/** The card of a pushed adapter or model: method, data, figures, licence of the base. */

export interface CardFacts {
  repo: string
  /** adapter or checkpoint folder */
  dir: string
  isAdapter: boolean
  base: string
  licence: string
  /** musc version */
  version: string
}

/** The run folder of an adapter `<run>/seed-<n>/train/<method>/adapter`, or undefined. */
function runOfAdapter(dir: string): { run: string; seed: string; method: string } | undefined {
  const method = dirname(resolve(dir))
  const seed = dirname(dirname(method))
  const run = dirname(seed)
  if (basename(dirname(method)) !== "train" || !existsSync(join(run, "config.json"))) return undefined
  return { run, seed: basename(seed).replace("seed-", ""), method: basename(method) }
}

/** The licence in the front matter of a model folder's README.md. */
export function licenceOfFolder(dir: string): string | undefined {
  const file = join(dir, "README.md")
  if (!existsSync(file)) return undefined
  const [, front = ""] = /^---\n([\s\S]*?)\n---/.exec(readFileSync(file, "utf8")) ?? []
  return /^license:\s*["']?([\w.-]+)/m.exec(front)?.[1]
}

/** Text for a line of Markdown, without what would end a table cell or start HTML. */
const plain = (value: unknown): string =>
  `${typeof value === "object" ? JSON.stringify(value) : value}`.replace(/[\r\n]+/g, " ").replace(/[<|`]/g, "\\$&")

const settingNames = [
  "instructionsFrom",
  "instructions",
  "shots",
  "noiseRatio",
  "weighting",
  "loss",
  "beta",
  "rank",
  "alpha",
  "lr",
  "epochs",
  "batchSize",
]

/** The card as Markdown with front matter; figures are those of the run's results.md, as they are. */
export function modelCardOf({ repo, dir, isAdapter, base, licence, version }: CardFacts): string {
  const from = runOfAdapter(dir)
  const config: JsonObject = from ? readJsonFile(join(from.run, "config.json")) : {}
  const manifestFile = from && join(from.run, "manifest.json")
  const manifest: JsonObject = manifestFile && existsSync(manifestFile) ? readJsonFile(manifestFile) : {}
  const tableFile = from && join(from.run, "results.md")
  const table = tableFile && existsSync(tableFile) ? readFileSync(tableFile, "utf8") : ""
  const backend = isJsonObject(manifest) && manifest.machine ? ` on ${plain(manifest.machine)}` : ""
  const front = [
    `base_model: ${JSON.stringify(base)}`,
    `license: ${licence}`,
    `library_name: ${isAdapter ? "peft" : "transformers"}`,
    "pipeline_tag: text-generation",
    `tags: [musc, dpo${isAdapter ? ", lora" : ""}]`,
  ]
  const settings = settingNames
    .filter((key) => config[key] !== undefined)
    .map((key) => `| ${key} | ${plain(config[key])} |`)
  const parts = [
    `---\n${front.join("\n")}\n---`,
    `# ${repo}`,
    `${isAdapter ? "A LoRA adapter for" : "A checkpoint made from"} ${plain(base)}, ` +
      "trained by MuSC (multi-granularity self-contrastive training, " +
      "[arXiv:2502.11541](https://arxiv.org/abs/2502.11541)) to follow instructions with many constraints.",
    "## Method",
    "The model decomposes instructions into constraints, corrupts some of them, and answers both versions. " +
      "It then learns by DPO to prefer the answer to the clean instruction, with a weight for each token. No stronger model is involved.",
    ...(from ? [`Method \`${from.method}\`, seed ${from.seed}.`] : []),
    ...(settings.length ? ["## Data and settings", `| setting | value |\n| --- | --- |\n${settings.join("\n")}`] : []),
    ...(table
      ? [
          "## Results",
          "On held-out instructions, with 95 % bootstrap intervals. CSR: share of its constraints that an answer keeps, on average. " +
            `ISR: share of answers that keep all.\n\n${table.trim()}`,
        ]
      : ["## Results", "The run did not evaluate this model."]),
    "## Licence",
    `The base model's licence, ${licence}, also applies to this ${isAdapter ? "adapter" : "checkpoint"}.`,
    `Made by musc ${version}${manifest.commit && manifest.commit !== "none" ? `, commit ${plain(manifest.commit)}` : ""}${backend}.`,
  ]
  return `${parts.join("\n\n")}\n`
}
