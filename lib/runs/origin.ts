import { execFileSync } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { memory, processors } from "../machine"

/**
 * The commit of a checkout, by default the one that this code runs from, with `+` when files differ from it; "none"
 * outside a checkout.
 */
export function commit(checkout = join(__dirname, "../..")): string {
  const git = (...args: string[]) =>
    execFileSync("git", args, {
      cwd: checkout,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim()
  if (!existsSync(join(checkout, ".git"))) return "none" // a package inside somebody else's repository
  try {
    return git("rev-parse", "--short=10", "HEAD") + (git("status", "--porcelain", "--", "lib") ? "+" : "")
  } catch {
    return "none"
  }
}

/** The machine in a few words, for results that depend on it. */
export function machine(): string {
  const { count, name } = processors()
  return `${count} x ${name}, ${Math.round(memory().total / 2 ** 30)} GiB, Node ${process.version}`
}
