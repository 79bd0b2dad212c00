import { execFile, execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Maths } from "../../lib/device/tf"
import type { Answer, Job } from "./jobs"

/** The last line of a program that answers a job. */
function run(command: string, args: readonly string[], env: Record<string, string>): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = { env: { ...process.env, ...env }, maxBuffer: 2 ** 28 }
    execFile(command, args, options, (error, stdout, stderr) => {
      if (error) return reject(new Error(`${args.slice(0, -1).join(" ")} failed:\n${stderr.slice(-3000)}`))
      resolve(JSON.parse(stdout.trimEnd().split("\n").at(-1)!))
    })
  })
}

export const runOurs = (job: Job, maths: Maths): Promise<Answer> =>
  run(process.execPath, ["-r", "tsx/cjs", join(__dirname, "ours.ts"), JSON.stringify(job)], {
    ONEDNN_DEFAULT_FPMATH_MODE: maths === "bf16" ? "BF16" : "STRICT",
    ...hidden(job),
  })

export const runPeer = (python: string, script: string, job: Job): Promise<Answer> =>
  run(python, [join(__dirname, "peers", script), JSON.stringify(job)], {
    HF_HUB_OFFLINE: "1",
    OMP_NUM_THREADS: `${job.threads}`,
    ...hidden(job),
  })

/** Nothing sees a GPU that is not to be used. */
const hidden = ({ device }: Job): Record<string, string> => (device === "cpu" ? { CUDA_VISIBLE_DEVICES: "" } : {})

/** A Python with the peers' packages: made once, again when the list of packages changes. */
export function peerPython(): string {
  const list = join(__dirname, "peers/requirements.txt")
  const hash = createHash("sha256").update(readFileSync(list)).digest("hex")
  const dir = join(__dirname, "../../.venv/bench")
  const python = join(dir, process.platform === "win32" ? "Scripts/python.exe" : "bin/python")
  const stamp = join(dir, "requirements.sha256")
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === hash) return python
  process.stderr.write(`making the peers' environment in ${dir}, some minutes and gigabytes\n`)
  rmSync(dir, { recursive: true, force: true })
  mkdirSync(dir, { recursive: true })
  const loud = { stdio: ["ignore", 2, 2] as ("ignore" | number)[] }
  execFileSync(process.platform === "win32" ? "python" : "python3", ["-m", "venv", dir], loud)
  execFileSync(python, ["-m", "pip", "install", "--quiet", "-r", list], loud)
  writeFileSync(stamp, hash)
  return python
}
