import { spawnSync } from "node:child_process"
import { mkdirSync, rmSync, statfsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { verify } from "../../../lib/runs/verify"
import { hasStack, lastLine, musc } from "./child"
import { Count, type Tally } from "./table"

interface Disk {
  name: string
  mount(at: string, kib: number): boolean
}

const ok = (command: string, ...args: string[]) => spawnSync(command, args, { stdio: "ignore" }).status === 0

/** File systems that can be made here. */
const disks = (root: string): Disk[] => [
  { name: "tmpfs", mount: (at, kib) => ok("mount", "-t", "tmpfs", "-o", `size=${kib}k`, "tmpfs", at) },
  {
    name: "ext4",
    mount: (at, kib) => {
      const image = join(root, "ext4.img")
      rmSync(image, { force: true })
      // Hashed folders: each file system has a seed of its own, so files come in another order each time.
      return (
        ok("truncate", "-s", `${Math.max(kib, 256)}k`, image) &&
        ok("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "dir_index,^has_journal", image) &&
        ok("mount", "-o", "loop", image, at)
      )
    },
  },
]

/** What `musc report --verify` finds in the run of the end. */
async function faultOf(dir: string, kib: number): Promise<string | undefined> {
  try {
    const found = (await verify(dir)).flatMap(({ problems }) => problems)
    return found[0] && `not whole after ${kib} KiB: ${found[0]}`
  } catch (error) {
    return `not whole after ${kib} KiB: ${(error as Error).message}`
  }
}

/**
 * Lets work run into a full disk of every size from next to nothing to enough; then gives it room and lets it go on. It
 * must say what is wrong, keep what was finished, and end as if nothing had happened.
 */
export async function fullDisks(
  root: string,
  args: (dir: string) => string[],
  points: number,
  seconds: number,
): Promise<Tally[]> {
  const at = join(root, "disk")
  mkdirSync(at, { recursive: true })
  const tallies: Tally[] = []
  const each = seconds / 2
  for (const disk of disks(root)) {
    const count = new Count(`full disks: ${disk.name}`)
    tallies.push(count)
    if (!disk.mount(at, 64 * 1024)) {
      count.note = "not possible on this machine"
      continue
    }
    const whole = await musc(args(join(at, "run")))
    const { blocks, bfree, bsize } = statfsSync(at)
    const need = Math.ceil(((blocks - bfree) * bsize) / 1024)
    ok("umount", at)
    if (whole.code !== 0) {
      count.add(`undisturbed: ${lastLine(whole.output)}`)
      continue
    }
    const end = Date.now() + 1000 * each
    let full = 0
    for (let i = 0; i < points && Date.now() < end; i++) {
      const kib = Math.max(16, Math.round((need * (i + 0.5)) / points))
      if (!disk.mount(at, kib + 4)) continue
      const dir = join(at, "run")
      const first = await musc(args(dir))
      let problem: string | undefined
      if (first.code !== 0) {
        full++
        if (hasStack(first.output)) problem = `stack trace at ${kib} KiB`
        else if (!/disk is full|ENOSPC/.test(first.output)) problem = `at ${kib} KiB: ${lastLine(first.output)}`
        // More room, and on: tmpfs grows in place; a copy of what was kept stands for a larger ext4.
        if (disk.name === "tmpfs") ok("mount", "-o", "remount,size=64m", at)
        else {
          ok("cp", "-a", `${at}/.`, join(root, "kept"))
          ok("umount", at)
          disk.mount(at, 64 * 1024)
          ok("cp", "-a", `${join(root, "kept")}/.`, at)
          rmSync(join(root, "kept"), { recursive: true, force: true })
        }
        const second = await musc(args(dir))
        if (second.code !== 0) problem ??= `no way on from ${kib} KiB: ${lastLine(second.output)}`
      }
      problem ??= await faultOf(dir, kib)
      count.add(problem)
      ok("umount", at)
    }
    count.note = `${full} of them met a full disk; the run takes ${need} KiB`
  }
  writeFileSync(join(root, "done"), "")
  return tallies
}
