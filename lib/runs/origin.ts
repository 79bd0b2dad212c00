import { execFileSync } from "node:child_process"
import { existsSync } from "node:fs"
import { cpus, totalmem } from "node:os"
import { join } from "node:path"

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
  const processors = cpus()
  const gib = Math.round(totalmem() / 2 ** 30)
  return `${processors.length} x ${processors[0]?.model.trim() ?? "unknown processor"}, ${gib} GiB, Node ${process.version}`
}
