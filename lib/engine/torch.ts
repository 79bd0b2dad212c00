import { spawn } from "node:child_process"
import { createWriteStream, existsSync, readFileSync, rmSync } from "node:fs"
import { chmod, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { copyFinished, removeFinished, replaceAtomic } from "../data/files"
import { isRunning, type ProcessIdentity, processOf } from "../data/process"
import { BackendError, InputError, MuscError, PendingJobError, StoppedError } from "../errors"
import { pythonFolder, withPython } from "../native/python-env"

/**
 * Scoring and training by Python on any number of processes and machines: a folder with a script and its data in, files
 * out. Python holds nothing of the method: it gets token ids, weights, the order of the pairs and the first adapter.
 */

/** How Python jobs are started. */
export interface TorchOptions {
  /**
   * `torchrun …` or `accelerate launch …`; `job` starts nothing, for clusters: it writes the folder and says what to
   * run
   */
  command: string
  /** pairs that a process reads at once; more takes more memory */
  rowsPerPass: number
  /** of the weights: float32 (exact), or bfloat16 for GPUs */
  dtype: "float32" | "bfloat16"
}

export const torchDefaults: TorchOptions = { command: "", rowsPerPass: 4, dtype: "float32" }

/**
 * Words of a command line, with "double" and 'single' quotes. No shell reads it. @throws InputError for an open quote
 */
export function wordsOf(command: string): string[] {
  const words: string[] = []
  const word = /\s*((?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s"'\\])+)/y
  for (let at = 0; at < command.trimEnd().length; at = word.lastIndex) {
    word.lastIndex = at
    const match = word.exec(command)
    if (!match)
      throw new InputError(`must be a command with closed quotes, got ${command}; close them`, { field: "--torch" })
    words.push(
      match[1]!.replace(/"((?:\\.|[^"\\])*)"|'([^']*)'|\\(.)/g, (_, double?: string, single?: string, one?: string) =>
        double !== undefined ? double.replace(/\\(["\\])/g, "$1") : (single ?? one!),
      ),
    )
  }
  return words
}

const scripts = join(__dirname, "../../lib/engine/python")

export interface Job {
  /** Folder with settings.json and the data. */
  folder: string
  script: "score.py" | "train.py"
  command: string
  signal?: AbortSignal
  /** Called a few times a second while the job runs. */
  onPoll?: () => void | Promise<void>
}

/** What a cluster runs: the script beside it, by the launcher of its choice. */
function runScript(script: string, python: string | undefined): string {
  const programs = python && join(python, "bin")
  const path = programs ? `\nif [ -d '${programs}' ]; then PATH='${programs}':"$PATH"; fi # npx musc python` : ""
  return `#!/usr/bin/env bash
# ${script === "train.py" ? "Trains the adapter" : "Scores the answers"} of this folder. Run it where the GPUs are; run again, it goes on.
# LAUNCH chooses processes and machines, for example LAUNCH="accelerate launch --config_file fsdp2.yaml".
set -euo pipefail
cd "$(dirname "$0")"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false${path}
exec \${LAUNCH:-torchrun --standalone --nproc_per_node auto} ${script} .
`
}

/** Writes the script and `run.sh` into a job folder whose data is there. */
async function completeJob(folder: string, script: Job["script"]): Promise<void> {
  await copyFinished(join(scripts, script), join(folder, script))
  await writeFile(join(folder, "run.sh"), runScript(script, pythonFolder()))
  await chmod(join(folder, "run.sh"), 0o755)
}

/**
 * Runs the job of a folder to its end. What it prints goes to `log.txt` of the folder. At an abort it gets SIGTERM,
 * writes its state and ends; the same job resumes from there.
 * @throws PendingJobError for `job`; BackendError when it cannot be started; MuscError with its last lines when it
 * fails; StoppedError when aborted
 */
export async function runJob({ folder, script, command, signal, onPoll }: Job): Promise<void> {
  await completeJob(folder, script)
  await endEarlier(folder)
  if (command.trim() === "job") throw new PendingJobError([folder])
  const [program, ...args] = wordsOf(command)
  if (!program)
    throw new InputError("must be a command such as `torchrun --nproc_per_node 2`, or job, got nothing", {
      field: "--torch",
    })
  if (signal?.aborted) throw new StoppedError()
  const log = createWriteStream(join(folder, "log.txt"), { flags: "a" })
  // A process group of its own: Ctrl-C of the terminal reaches Node alone, which passes it on once.
  const child = spawn(program, [...args, script, "."], {
    cwd: folder,
    env: withPython({ PYTHONUNBUFFERED: "1", TOKENIZERS_PARALLELISM: "false", HF_HUB_OFFLINE: "1" }),
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  })
  if (child.pid) replaceAtomic(join(folder, processFile), JSON.stringify(processOf(child.pid)))
  child.stdout.pipe(log, { end: false })
  child.stderr.pipe(log, { end: false })
  let tail = ""
  const keep = (chunk: Buffer) => {
    tail = (tail + chunk).slice(-4000)
  }
  child.stdout.on("data", keep)
  child.stderr.on("data", keep)
  const end = (name: NodeJS.Signals) => {
    try {
      process.kill(-child.pid!, name)
    } catch {} // it has ended
  }
  let force: NodeJS.Timeout | undefined
  const stop = () => {
    end("SIGTERM")
    force = setTimeout(() => end("SIGKILL"), 60_000)
  }
  signal?.addEventListener("abort", stop, { once: true })
  const onExit = () => end("SIGKILL")
  process.once("exit", onExit)
  let polling = false
  const poll = setInterval(() => {
    if (polling) return
    polling = true
    Promise.resolve(onPoll?.()).finally(() => {
      polling = false
    })
  }, 300)
  try {
    const code = await new Promise<number | string>((resolve, reject) => {
      child.on("error", (error: NodeJS.ErrnoException) => {
        const missing = error.code === "ENOENT"
        const how = `${program} could not be started${missing ? ": it is not installed" : `: ${error.message}`}`
        reject(new BackendError(`${how}; run \`npx musc python\` once, which installs torchrun and accelerate`))
      })
      child.on("close", (status, name) => resolve(status ?? name ?? "unknown"))
    })
    await onPoll?.()
    if (signal?.aborted) throw new StoppedError()
    if (code !== 0) {
      const lines = tail.trim().split("\n").slice(-12).join("\n")
      throw new MuscError(
        `${program} ended with ${code}; the whole log is ${join(folder, "log.txt")}, its last lines:\n${lines}`,
      )
    }
  } finally {
    clearInterval(poll)
    clearTimeout(force)
    process.off("exit", onExit)
    signal?.removeEventListener("abort", stop)
    end("SIGKILL") // what a launcher left behind
    rmSync(join(folder, processFile), { force: true })
    await new Promise((resolve) => log.end(resolve))
  }
}

/** Who runs the job of a folder, while one does. */
const processFile = "process.json"

/**
 * Ends the job of an earlier start whose program was killed without a chance to do so: two would write the same files.
 */
async function endEarlier(folder: string): Promise<void> {
  const file = join(folder, processFile)
  if (!existsSync(file)) return
  const earlier = JSON.parse(readFileSync(file, "utf8")) as ProcessIdentity
  while (isRunning(earlier)) {
    try {
      process.kill(-earlier.pid, "SIGKILL")
    } catch {} // it has just ended
    await sleep(50)
  }
  rmSync(file)
}

/** Removes a job folder whose result stands elsewhere. Another folder of that name, one without a job, stays. */
export async function removeJob(folder: string): Promise<void> {
  if (existsSync(join(folder, "key.txt"))) await removeFinished(folder)
}

/** Whole lines of a file that another process appends to, behind `from` bytes. */
export function newLines(file: string, from: number): { lines: string[]; end: number } {
  if (!existsSync(file)) return { lines: [], end: from }
  const bytes = readFileSync(file)
  if (bytes.length < from) return { lines: [], end: from } // it begins anew
  const end = bytes.lastIndexOf("\n") + 1
  const text = bytes.subarray(from, Math.max(from, end)).toString("utf8")
  return { lines: text.split("\n").filter(Boolean), end: Math.max(from, end) }
}
