import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs"
import { delimiter, join } from "node:path"
import { writeAtomic } from "../data/files"
import { ChildError, run } from "../device/child"
import { cacheFolder, variable, withVariables } from "../environment"
import { BackendError } from "../errors"

/**
 * The Python that scores and trains by `--torch`: exact versions, checked by hash. Nobody who runs in process needs it.
 */

const requirements = join(__dirname, "../../lib/engine/python/requirements.txt")

/** Where the environment of these requirements lies; another set of versions is another folder. */
const folderOf = () => {
  const hash = createHash("sha256").update(readFileSync(requirements)).digest("hex").slice(0, 12)
  return join(cacheFolder(), `python-${hash}`)
}
const doneFile = "musc-complete"

/** The folder of the environment, or undefined before `npx musc python`. `MUSC_PYTHON` names one of your own. */
export function pythonFolder(): string | undefined {
  const own = variable("MUSC_PYTHON")
  if (own) return own
  const folder = folderOf()
  return existsSync(join(folder, doneFile)) ? folder : undefined
}

/** The variables of a program that may be one of that environment; `more` come beside them. */
export function withPython(more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const folder = pythonFolder()
  const path = variable("PATH") ?? ""
  return withVariables({ ...more, PATH: folder ? `${join(folder, "bin")}${delimiter}${path}` : path })
}

/** The pinned packages and versions, for people. */
export const pinnedPackages = (): string[] =>
  [...readFileSync(requirements, "utf8").matchAll(/^([a-z][\w.-]*)==([^\s\\;]+)/gim)].map(
    ([, name, version]) => `${name} ${version}`,
  )

/**
 * Makes the environment once: a venv with the pinned packages. Done already, it does nothing.
 * @throws BackendError when Python or a package cannot be had, with what to do
 */
export async function makePython(
  { python = "python3", force = false }: { python?: string; force?: boolean },
  log: (line: string) => void,
): Promise<string> {
  const folder = folderOf()
  if (!force && existsSync(join(folder, doneFile))) {
    log(`python: nothing to do, ${folder} is complete`)
    return folder
  }
  try {
    mkdirSync(cacheFolder(), { recursive: true })
    log(`python: an environment for scoring and training by PyTorch, in ${folder} (several GB, once)`)
    // A venv holds its own path, so it is made in place; the file that says "complete" comes last.
    rmSync(folder, { recursive: true, force: true })
    await run(python, ["-m", "venv", folder])
    await run(
      join(folder, "bin/python"),
      ["-m", "pip", "install", "--require-hashes", "--no-deps", "-r", requirements],
      { visible: true },
    )
    await writeAtomic(join(folder, doneFile), `${pinnedPackages().join("\n")}\n`)
    return folder
  } catch (error) {
    if (!(error instanceof ChildError)) throw error
    const remedy = error.missing
      ? `install Python 3.10 to 3.13 with venv, or name one by --python`
      : "check network and disk, then run `npx musc python` again"
    throw new BackendError(`python: ${error.message}; ${remedy}`)
  }
}
