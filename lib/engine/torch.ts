import { type ChildProcess, spawn } from "node:child_process"
import { createWriteStream, existsSync, readFileSync, rmSync, type WriteStream } from "node:fs"
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
export async function runJob(job: Job): Promise<void> {
  const { folder, script, command, signal, onPoll } = job
  await completeJob(folder, script)
  await endEarlier(folder)
  if (command.trim() === "job") throw new PendingJobError([folder])
  const [program, ...args] = wordsOf(command)
  if (!program)
    throw new InputError("must be a command such as `torchrun --nproc_per_node 2`, or job, got nothing", {
      field: "--torch",
    })
  if (signal?.aborted) throw new StoppedError()
  const running = new RunningJob(folder, program, [...args, script, "."])
  const stop = () => running.stop()
  signal?.addEventListener("abort", stop, { once: true })
  const endPolls = everyMoment(onPoll)
  try {
    const code = await running.ended
    await onPoll?.()
    if (signal?.aborted) throw new StoppedError()
    if (code !== 0) {
      const rule = `${program} ended with ${code}; the whole log is ${running.log}, its last lines:`
      throw new MuscError(`${rule}\n${running.lastLines}`)
    }
  } finally {
    endPolls()
    signal?.removeEventListener("abort", stop)
    await running.end()
  }
}

/** The processes of a job, which end when this one does. */
class RunningJob {
  readonly log: string
  /** Exit code, or the signal that ended it. @throws BackendError when it cannot be started */
  readonly ended: Promise<number | string>
  private readonly child: ChildProcess
  private readonly writer: WriteStream
  private tail = ""
  private force: NodeJS.Timeout | undefined
  private readonly onExit = () => this.kill("SIGKILL")

  constructor(
    private readonly folder: string,
    program: string,
    args: readonly string[],
  ) {
    this.log = join(folder, "log.txt")
    this.writer = createWriteStream(this.log, { flags: "a" })
    // A process group of its own: Ctrl-C of the terminal reaches Node alone, which passes it on once.
    const child = spawn(program, args, {
      cwd: folder,
      env: withPython({ PYTHONUNBUFFERED: "1", TOKENIZERS_PARALLELISM: "false", HF_HUB_OFFLINE: "1" }),
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    })
    this.child = child
    this.ended = new Promise<number | string>((resolve, reject) => {
      child.on("error", (error: NodeJS.ErrnoException) => reject(notStarted(program, error)))
      child.on("close", (status, name) => resolve(status ?? name ?? "unknown"))
    })
    if (child.pid) replaceAtomic(join(folder, processFile), JSON.stringify(processOf(child.pid)))
    for (const stream of [child.stdout, child.stderr]) {
      stream.pipe(this.writer, { end: false })
      stream.on("data", (chunk: Buffer) => {
        this.tail = (this.tail + chunk).slice(-4000)
      })
    }
    process.once("exit", this.onExit)
  }

  get lastLines(): string {
    return this.tail.trim().split("\n").slice(-12).join("\n")
  }

  /** Asks it to write its state and end, and ends it a minute later. */
  stop(): void {
    this.kill("SIGTERM")
    this.force = setTimeout(() => this.kill("SIGKILL"), 60_000)
  }

  /** Ends what is left of it, such as what a launcher left behind. */
  async end(): Promise<void> {
    clearTimeout(this.force)
    process.off("exit", this.onExit)
    this.kill("SIGKILL")
    rmSync(join(this.folder, processFile), { force: true })
    await new Promise<void>((resolve) => this.writer.end(resolve))
  }

  private kill(name: NodeJS.Signals): void {
    try {
      process.kill(-this.child.pid!, name)
    } catch {} // it has ended
  }
}

function notStarted(program: string, { code, message }: NodeJS.ErrnoException): BackendError {
  const how = `${program} could not be started${code === "ENOENT" ? ": it is not installed" : `: ${message}`}`
  return new BackendError(`${how}; run \`npx musc python\` once, which installs torchrun and accelerate`)
}

/** Does something a few times a second, never twice at once, until the function that it gives is called. */
function everyMoment(work: Job["onPoll"]): () => void {
  let busy = false
  const timer = setInterval(() => {
    if (busy) return
    busy = true
    Promise.resolve(work?.()).finally(() => {
      busy = false
    })
  }, 300)
  return () => clearInterval(timer)
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
