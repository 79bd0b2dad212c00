import { existsSync } from "node:fs"
import { join } from "node:path"
import type { Command } from "commander"
import { readJsonFile } from "../data/json-file"
import { InputError } from "../errors"
import { parseHubName } from "../hub/hub"
import { hubLicence, pushFiles, pushFolder } from "../hub/push"
import { localFolder } from "../model/traits"
import { licenceOfFolder, modelCardOf } from "../report/card"
import { packageJson } from "../runs/manifest"
import { aligned } from "../runs/results"

interface Options {
  base?: string
  license?: string
  private?: boolean
  yes?: boolean
}

export function register(program: Command): void {
  program
    .command("push")
    .description(
      "Push an adapter, or a checkpoint that `musc merge` made, to the Hugging Face hub with a model card: method, data, figures, " +
        "licence of the base model. Shows files and card first, and pushes only with --yes.",
    )
    .argument("<folder>", "adapter or checkpoint, e.g. runs/smoke/seed-0/train/musc/adapter")
    .argument("<name>", "repository on the hub: org/name")
    .option("--base <model>", "base model on the hub (default: the one that the adapter names)")
    .option("--license <id>", "licence of the base model (default: the one that its card names)")
    .option("--private", "make the repository private, where it is new")
    .option("--yes", "push; without it nothing leaves this machine")
    .addHelpText(
      "after",
      `
Examples:
  musc push runs/smoke/seed-0/train/musc/adapter me/world-musc           what would be pushed
  musc push runs/smoke/seed-0/train/musc/adapter me/world-musc --yes

Environment: HF_TOKEN (one that may write), HF_ENDPOINT (another hub).`,
    )
    .action(push)
}

async function push(dir: string, name: string, options: Options): Promise<void> {
  const hub = parseHubName(name)
  if (!hub || name.includes("@")) throw new InputError(`a repository must be org/name, got ${name}; correct the name`)
  const files = await pushFiles(dir)
  const isAdapter = existsSync(join(dir, "adapter_config.json"))
  const recorded = isAdapter ? readJsonFile(join(dir, "adapter_config.json")).base_model_name_or_path : undefined
  const base = options.base ?? (typeof recorded === "string" ? recorded : "")
  if (!base) throw new InputError("the base model must be named in the card, got none; give --base org/name")
  const folder = localFolder(base)
  const licence =
    options.license ?? (folder && licenceOfFolder(folder)) ?? (parseHubName(base) ? await hubLicence(base) : undefined)
  if (!licence || !/^[\w.-]{1,64}$/.test(licence)) {
    const rule = `the licence of ${base} must be known, got ${licence ?? "none that its card or the hub names"}`
    throw new InputError(`${rule}; give --license, e.g. --license apache-2.0`)
  }
  const { version } = packageJson()
  const card = modelCardOf({ repo: hub.repo, dir, isAdapter, base, licence, version })
  const size = (bytes: number) => `${(bytes / 1e6).toFixed(2)} MB`
  console.log(
    aligned([...files.map((file) => [file.name, size(file.bytes)]), ["README.md", size(Buffer.byteLength(card))]]),
  )
  if (!options.yes) return console.log(`\n${card}\nNothing was pushed to ${hub.repo}: add --yes to do it.`)
  console.log(`pushed: ${await pushFolder(dir, hub.repo, card, { isPrivate: options.private })}`)
}
