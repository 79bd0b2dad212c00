import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"
import { type Current, currentOf } from "../config/current"
import { hashesOf, isTemporary, removeTemporaries, writeAtomic } from "../data/files"
import { isLockFile } from "../data/lock"
import { secretText } from "../engine/address"
import { InputError } from "../errors"
import { architecture, platform } from "../machine"

/** What a stage took: `done` rows or steps, tokens written by the model. */
export interface StageTime {
  seconds: number
  unit: string
  done: number
  tokens?: number
}

/** What made a run: enough to make it again. */
export interface Manifest {
  musc: string
  node: string
  platform: string
  packages: Record<string, string>
  backend: string
  /** `text`: the server that wrote in the model's place, by name and by what decides what it says. */
  model: { name: string; fingerprint: string; text?: { model: string; id: string } }
  command: string
  /** commit of the checkout, "none" for an installed package */
  commit: string
  machine: string
  /**
   * how the model was run for writing and scoring and for each training, as `musc plan` says it; a server's is not
   * known
   */
  plans: Record<string, string>
  /** what each stage took, by its path in the run folder */
  stages: Record<string, StageTime>
  seeds: readonly number[]
  started: string
  finished: string
}

const root = join(__dirname, "../..")

/** Name, version and dependencies of this package. */
export const packageJson = (): { version: string; description: string; dependencies: Record<string, string> } =>
  JSON.parse(readFileSync(join(root, "package.json"), "utf8"))

/** Versions of node and of the packages in use. */
export function versions(): Pick<Manifest, "musc" | "node" | "platform" | "packages"> {
  const { version, dependencies } = packageJson()
  return {
    musc: version,
    node: process.version,
    platform: `${platform} ${architecture}`,
    packages: dependencies,
  }
}

/** Names of options and variables that hold a secret: --api-key, HF_TOKEN. */
const secretName =
  /(?:^|[-_])(?:(?:api[-_]?)?keys?|token|secret|passw(?:or)?d|passphrase|credentials?|auth(?:orization)?)$/i

/**
 * The words of a command line without its secrets, those of `--serve` included: the values of options and variables
 * whose name says so, what services make as keys, and what stands behind Bearer.
 */
export function withoutSecrets(argv: readonly string[]): string {
  const isSecret = (name: string | undefined) => name !== undefined && secretName.test(name)
  return argv
    .map((word, i) => {
      const [, option] = /^'?--?([\w-]+)$/.exec(argv[i - 1] ?? "") ?? []
      if (i > 0 && isSecret(option)) return "[left out]"
      const [, mark, name] = /^('?(?:--?)?([\w-]+)=)/.exec(word) ?? []
      return isSecret(name) ? `${mark}[left out]` : word
    })
    .join(" ")
    .replace(/(:\/\/)[^/@\s]+@/g, "$1[left out]@")
    .replace(/\b(Bearer|Basic) [^\s'"]+/g, "$1 [left out]")
    .replace(new RegExp(secretText, "gi"), "[left out]")
}

/**
 * Writes `manifest.json` with the sha256 of all other files of the run: last of all, whole or not at all. The report is
 * left out, as it is made from the manifest too, so are logs of trackers, and so are trainings and answers of methods,
 * seeds and temperatures that the run's settings no longer name.
 */
export async function writeManifest(dir: string, manifest: Manifest, now: Current = currentOf()): Promise<void> {
  const files = await hashesOf(dir, filesOfRun(dir).filter(now.file))
  await writeAtomic(join(dir, "manifest.json"), `${JSON.stringify({ ...manifest, files }, null, 2)}\n`)
}

/**
 * A run's manifest names all files below its folder, so another run must not lie there.
 * @throws InputError for a folder inside of a run
 */
export function checkOutsideRuns(dir: string): void {
  for (let inner = resolve(dir), outer = dirname(inner); outer !== inner; inner = outer, outer = dirname(outer)) {
    const isRun =
      existsSync(join(outer, "config.json")) && readdirSync(outer).some((name) => /^seed-(?:-?\d+)$/.test(name))
    if (isRun)
      throw new InputError(`must lie outside of other runs, got one inside of ${outer}; choose another`, { file: dir })
  }
}

/** Removes what killed processes left unfinished in a run folder, which must be locked. */
export function sweep(dir: string): void {
  removeTemporaries(dir, { all: true })
  for (const entry of readdirSync(dir, { withFileTypes: true })) if (entry.isDirectory()) sweep(join(dir, entry.name))
}

/** The files of a run that its manifest names, relative to its folder, in order. */
export const filesOfRun = (dir: string): string[] =>
  listFiles(dir).filter(
    (file) => !/^(manifest\.json|report\.html|compared-with-.*\.html|(tensorboard|mlruns)\/.*)$/.test(file),
  )

/** All files below a folder, relative to it, in order. */
function listFiles(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && !isLockFile(entry.name) && !isTemporary(entry.name))
    .map((entry) => relative(dir, join(entry.parentPath, entry.name)).replaceAll("\\", "/"))
    .sort()
}
