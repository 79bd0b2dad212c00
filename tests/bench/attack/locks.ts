import { type ChildProcess, execFileSync, fork, spawn, spawnSync } from "node:child_process"
import { mkdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs"
import { hostname } from "node:os"
import { join } from "node:path"
import { thisProcess } from "../../../lib/data/process"
import { Count, type Tally } from "./table"

/** The lock of a process that has ended, as it was left behind. */
function deadLock(): string {
  const { pid } = spawnSync(process.execPath, ["-e", ""])
  return JSON.stringify({ ...thisProcess(), pid, id: `dead-${pid}` })
}

/** Processes race for stale and for free locks: one at a time may be inside. */
export async function lockRaces(root: string, races: number, seconds: number, racers = 4): Promise<Tally> {
  const end = Date.now() + 1000 * seconds
  const count = new Count(`lock races, ${racers} processes each`)
  const children = Array.from({ length: racers }, () =>
    fork(join(__dirname, "lock-racer.ts"), { execArgv: ["-r", "tsx/cjs"] }),
  )
  const stale = Array.from({ length: 8 }, deadLock)
  let refused = 0
  const answer = (child: ChildProcess) =>
    new Promise<string>((resolve) => child.once("message", (said) => resolve(`${said}`)))
  try {
    for (let i = 0; i < races && Date.now() < end; i++) {
      const dir = join(root, `race-${i % 50}`)
      rmSync(dir, { recursive: true, force: true })
      mkdirSync(dir, { recursive: true })
      if (i % 4) writeFileSync(join(dir, "lock.json"), stale[i % stale.length]!)
      const answers = children.map(answer)
      const at = Date.now() + 2
      for (const child of children) child.send({ dir, at })
      const said = await Promise.all(answers)
      refused += said.filter((one) => one === "refused").length
      const two = said.includes("two")
      count.add(two ? `race ${i}: two inside` : said.includes("held") ? undefined : `race ${i}: nobody got in`)
    }
  } finally {
    for (const child of children) child.kill()
  }
  count.note = `${refused} refusals`
  return count
}

const tryLock = `
const { lockFolder } = require(process.argv[1])
try { const lock = lockFolder(process.argv[2]); console.log("held"); if (process.argv[3]) setTimeout(() => {}, 1e6); else lock.release() }
catch (error) { console.log(error.name + ": " + error.message) }
`
const lockFile = join(__dirname, "../../../lib/data/lock.ts")
const node = [process.execPath, "-r", "tsx/cjs", "-e", tryLock, lockFile]
const root = join(__dirname, "../../..")

/** Whether this system lets us make sets of process ids. */
function hasNamespaces(): boolean {
  return spawnSync("unshare", ["--pid", "--fork", "--mount-proc", "true"]).status === 0
}

async function holder(command: readonly string[], dir: string): Promise<ChildProcess> {
  const child = spawn(command[0]!, [...command.slice(1), dir, "stay"], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
    detached: true,
  })
  await new Promise<void>((resolve) => child.stdout!.once("data", () => resolve()))
  return child
}
const attempt = (command: readonly string[], dir: string) =>
  execFileSync(command[0]!, [...command.slice(1), dir], { cwd: root, encoding: "utf8" }).trim()
const end = (child: ChildProcess) =>
  new Promise<void>((resolve) => {
    child.once("exit", () => resolve())
    process.kill(-child.pid!, "SIGKILL")
  })

/** Locks across sets of process ids with the same host name, of reused ids, and of other machines. */
export async function lockCases(dir: string): Promise<Tally> {
  const count = new Count("lock cases: containers, reused ids, other machines")
  const file = join(dir, "lock.json")
  const expected = (what: string, got: string, wanted: RegExp) =>
    count.add(wanted.test(got) ? undefined : `${what}: got ${got}`)
  const refused = /one process at a time/
  const write = (lock: object, age = 0) => {
    rmSync(dir, { recursive: true, force: true })
    mkdirSync(dir, { recursive: true })
    writeFileSync(file, JSON.stringify(lock))
    const then = Date.now() / 1000 - age
    utimesSync(file, then, then)
  }
  const here = thisProcess()
  const other = { ...here, id: "other", host: "elsewhere", boot: "another", pid: 1 }
  const dead = JSON.parse(deadLock())
  write(other)
  expected("a machine with a sign of life", attempt(node, dir), refused)
  write(other, 120)
  expected("a machine without one", attempt(node, dir), /^held/)
  write({ ...here, id: "reused", started: "1" })
  expected("a process id that was used again", attempt(node, dir), /^held/)
  write({ ...here, id: "same" }, 1000)
  expected("a process that runs and is busy", attempt(node, dir), refused)
  write({ ...dead, id: "dead" })
  expected("a process that ended a moment ago", attempt(node, dir), /^held/)
  write({ pid: dead.pid, host: hostname() })
  expected("a lock of an older version", attempt(node, dir), /^held/)
  rmSync(dir, { recursive: true })
  const first = await holder(node, dir)
  expected("a live process", attempt(node, dir), refused)
  await end(first)
  expected("the same, killed", attempt(node, dir), /^held/)
  if (!hasNamespaces()) {
    count.note = "sets of process ids not tried: unshare is not allowed here"
    return count
  }
  for (const [name, flags] of [
    ["a container", ["--pid", "--fork", "--kill-child", "--mount-proc"]],
    ["a container that sees the machine's /proc", ["--pid", "--fork", "--kill-child"]],
  ] as const) {
    rmSync(dir, { recursive: true, force: true })
    const inside = ["unshare", ...flags, ...node]
    const live = await holder(inside, dir)
    expected(`${name}, live, seen from outside`, attempt(node, dir), refused)
    expected(`${name}, live, seen from another`, attempt(inside, dir), refused)
    const text = readFileSync(file, "utf8")
    await end(live)
    expected(`${name}, killed a moment ago`, attempt(node, dir), refused)
    const then = Date.now() / 1000 - 120
    utimesSync(file, then, then)
    expected(`${name}, killed two minutes ago`, attempt(inside, dir), /^held/)
    const outside = await holder(node, dir)
    expected(`a process outside, live, seen from ${name}`, attempt(inside, dir), refused)
    await end(outside)
    if (!text.includes("pid:[")) count.add("no set of process ids in the lock")
  }
  return count
}
