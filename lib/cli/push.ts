import { existsSync } from "node:fs"
import { join } from "node:path"
import type { Command } from "commander"
import { readJsonFile } from "../data/json-file"
import { InputError } from "../errors"
import { parseHubName } from "../hub/name"
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
      "Push an adapter, or a checkpoint written by `musc merge`, to the Hugging Face hub with a model card: method, data, results, " +
        "licence of the base model. Without --yes it only prints the files and the card.",
    )
    .argument("<folder>", "adapter or checkpoint, e.g. runs/smoke/seed-0/train/musc/adapter")
    .argument("<name>", "repository on the hub: org/name")
    .option("--base <model>", "base model on the hub (default: the one that the adapter names)")
    .option("--license <id>", "licence of the base model (default: the one that its card names)")
    .option("--private", "make a new repository private")
    .option("--yes", "push; without this nothing is uploaded")
    .addHelpText(
      "after",
      `
Examples:
  musc push runs/smoke/seed-0/train/musc/adapter me/world-musc           print what would be pushed
  musc push runs/smoke/seed-0/train/musc/adapter me/world-musc --yes

Environment: HF_TOKEN (with write access), HF_ENDPOINT (another hub).`,
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
  if (!base) throw new InputError("the model card must name the base model, got none; give --base org/name")
  const folder = localFolder(base)
  const licence =
    options.license ?? (folder && licenceOfFolder(folder)) ?? (parseHubName(base) ? await hubLicence(base) : undefined)
  if (!licence || !/^[\w.-]{1,64}$/.test(licence)) {
    const rule = `the licence of ${base} must be known, got ${licence ?? "none from its card or the hub"}`
    throw new InputError(`${rule}; give --license, e.g. --license apache-2.0`)
  }
  const { version } = packageJson()
  const card = modelCardOf({ repo: hub.repo, dir, isAdapter, base, licence, version })
  const size = (bytes: number) => `${(bytes / 1e6).toFixed(2)} MB`
  console.log(
    aligned([...files.map((file) => [file.name, size(file.bytes)]), ["README.md", size(Buffer.byteLength(card))]]),
  )
  if (!options.yes) return console.log(`\n${card}\nNothing was pushed to ${hub.repo}. Add --yes to push.`)
  console.log(`pushed: ${await pushFolder(dir, hub.repo, card, { isPrivate: options.private })}`)
}
