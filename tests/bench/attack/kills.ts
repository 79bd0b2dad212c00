import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { join, relative } from "node:path"
import { rng } from "../../../lib/rng"
import { childrenOf, hasStack, killGroup, lastLine, musc, sleep } from "./child"
import { Count, type Tally } from "./table"

/** A command that can be stopped at any moment and started again, to the same files. */
export interface Work {
  name: string
  /** arguments, writing into `dir` */
  args(dir: string): string[]
  env?(dir: string): Record<string, string>
  /** it refuses to write over what it has finished, so that a start after the end is an error */
  once?: boolean
  /** why it cannot be tried on this machine */
  without?: string
}

/** Files that name times or processes, or are made from files that do. */
const timed = /(^|\/)(manifest\.json|report\.html|table\.md|scores\.json|results\.(csv|md))$|\.ipynb$|(^|\/)\.locks\//

function filesOf(dir: string): Map<string, Buffer> {
  const entries = existsSync(dir) ? readdirSync(dir, { recursive: true, withFileTypes: true }) : []
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
  return new Map(files.map((file) => [relative(dir, file), readFileSync(file)]))
}

/** How a folder differs from the undisturbed one; undefined where it does not. */
function differenceOf(a: string, b: string): string | undefined {
  const [whole, other] = [filesOf(a), filesOf(b)]
  for (const [file, bytes] of whole) {
    const again = other.get(file)
    if (!again) return `${file} is missing`
    if (!timed.test(file) && !again.equals(bytes)) return `${file} differs`
  }
  const extra = [...other.keys()].find((file) => !whole.has(file))
  return extra && `${extra} was left behind`
}

/**
 * Stops work by signals at random moments, the parent or one of its workers, starts it again each time, and compares
 * the files of the end with those of undisturbed work. Starts anew whenever it comes to its end before the next signal.
 */
export async function kills(root: string, work: Work, signals: number, seconds: number): Promise<Tally> {
  const count = new Count(`signals: ${work.name}`)
  if (work.without) {
    count.note = `not tried: ${work.without}`
    return count
  }
  const [whole, killed] = [join(root, "whole"), join(root, "killed")]
  const start = (dir: string, onStart?: Parameters<typeof musc>[1]) =>
    musc(work.args(dir), { env: work.env?.(dir), limit: 900, ...onStart })
  const end = Date.now() + 1000 * seconds
  rmSync(root, { recursive: true, force: true })
  const undisturbed = await start(whole)
  if (undisturbed.code !== 0) {
    count.add(`undisturbed: ${lastLine(undisturbed.output)}`)
    count.note = "the undisturbed work failed"
    return count
  }
  const random = rng(1, "attack", work.name)
  const span = undisturbed.seconds
  let pending = 0
  let rounds = 0
  const settle = async () => {
    const last = await start(killed)
    const difference = differenceOf(whole, killed)
    const problem = last.code !== 0 && !(work.once && !difference) ? lastLine(last.output) : difference
    for (; pending; pending--) count.add(problem)
    rmSync(killed, { recursive: true, force: true })
    rounds++
  }
  let slow = 0
  let slowest = 0
  for (let sent = 0; sent < signals && Date.now() < end; ) {
    const signal = (["SIGKILL", "SIGTERM", "SIGINT", "SIGKILL", "SIGHUP"] as const)[random.int(5)]!
    let stopped = 0
    let heard = false
    const ended = await start(killed, {
      onStart: async (child) => {
        // From the first moments on, and often enough before the end.
        await sleep(1000 * (0.2 + 0.9 * random.next() * span))
        if (child.exitCode !== null) return
        stopped = Date.now()
        const workers = childrenOf(child.pid!)
        const worker = workers.length > 0 && random.next() < 0.3 ? workers[random.int(workers.length)] : undefined
        if (worker !== undefined)
          try {
            process.kill(worker, "SIGKILL")
          } catch {} // it has ended
        else if (signal === "SIGKILL") killGroup(child)
        else heard = child.kill(signal)
        sent++
        pending++
        await sleep(20_000)
        if (child.exitCode === null && child.signalCode === null) {
          slow++
          killGroup(child)
        }
      },
    })
    if (heard) slowest = Math.max(slowest, (Date.now() - stopped) / 1000)
    if (hasStack(ended.output)) count.add(`${signal}: a stack trace: ${lastLine(ended.output)}`)
    if (!stopped || ended.code === 0 || (work.once && !differenceOf(whole, killed))) await settle()
  }
  if (pending) await settle()
  count.note = `undisturbed ${span.toFixed(0)} s; compared ${rounds} times; ended ${slowest.toFixed(1)} s after a signal at most${slow ? `; ${slow} still ran 20 s after the signal` : ""}`
  return count
}
