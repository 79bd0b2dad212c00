import { type ChildProcess, spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdirSync, readdirSync, rmSync } from "node:fs"
import { join, resolve } from "node:path"
import { ChildError, run as runProgram } from "../device/child"
import { InputError, MuscError } from "../errors"
import { pythonFolder } from "../native/python-env"

/** Weights & Biases by its own Python client, in a process a training. */

const script = join(__dirname, "../../lib/engine/python/wandb_log.py")
const hasWandb = "import importlib.util, sys; sys.exit(importlib.util.find_spec('wandb') is None)"

/**
 * The Python that has the client: the environment of `npx musc python` or `MUSC_PYTHON`, else the active one.
 * @throws InputError when neither has it, with the line that installs it
 */
export async function wandbPython(): Promise<string> {
  const own = pythonFolder()
  const candidates = [...(own ? [join(own, "bin", "python")] : []), "python3"]
  for (const python of candidates) {
    try {
      await runProgram(python, ["-c", hasWandb])
      return python
    } catch (error) {
      if (!(error instanceof ChildError)) throw error
    }
  }
  throw new InputError(
    `wandb needs its Python client, which ${candidates.join(" and ")} do${candidates.length > 1 ? "" : "es"} not have; ` +
      `install it: ${candidates[0]} -m pip install wandb`,
    { field: "--log" },
  )
}

export interface WandbRun {
  /** Adds metrics of one step. */
  metrics(step: number, values: Readonly<Record<string, number>>): void
  /** Adds a table, and its numbers as the run's summary. */
  table(
    table: { columns: readonly string[]; rows: readonly unknown[] },
    summary: Readonly<Record<string, number>>,
  ): void
  /** Resolves when the client has written everything. @throws MuscError with what the client said when it failed */
  finish(): Promise<void>
}

/** Starts a run in `<dir>/wandb`. The same names give the same run; its older offline files are removed. */
export function wandbRun(
  python: string,
  { dir, project, name, config }: { dir: string; project: string; name: string; config: object },
): WandbRun {
  const id = createHash("sha256")
    .update(`${resolve(dir)}\n${name}`)
    .digest("hex")
    .slice(0, 12)
  const folder = join(dir, "wandb")
  mkdirSync(folder, { recursive: true })
  for (const entry of readdirSync(folder))
    if (entry.startsWith("offline-run-") && entry.endsWith(`-${id}`))
      rmSync(join(folder, entry), { recursive: true, force: true })
  const child: ChildProcess = spawn(python, [script], { stdio: ["pipe", "ignore", "pipe"] })
  let said = ""
  child.stderr!.on("data", (chunk: Buffer) => {
    said = `${said}${chunk}`.slice(-4000)
  })
  child.stdin!.on("error", () => {}) // told by the exit code, with what the client said
  const ended = new Promise<string | null>((done) => {
    child.on("error", (error) => done(`${error}`))
    child.on("close", (code) => done(code === 0 ? null : said.trim().split("\n").slice(-6).join("\n")))
  })
  const write = (value: unknown) => void child.stdin!.write(`${JSON.stringify(value)}\n`)
  write({ project, name, id, dir: resolve(dir), config })
  return {
    metrics: (step, values) => write({ step, values }),
    table: (table, summary) => write({ table, summary }),
    async finish() {
      child.stdin!.end()
      const failure = await ended
      if (failure !== null)
        throw new MuscError(`wandb: ${failure || "its client failed"}; leave out --log wandb, or mend it and run again`)
    },
  }
}
