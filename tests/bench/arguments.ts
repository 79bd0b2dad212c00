import { readFileSync } from "node:fs"
import { type ParseArgsConfig, parseArgs } from "node:util"

/** The comment of a script that shows how it is called, as plain text. */
export function usage(file: string): string {
  const comments = readFileSync(file, "utf8").match(/^\/\*\*\n(?: \*.*\n)+? \*\//gm) ?? []
  const [found = ""] = comments.filter((comment) => /^ \* {5}np[mx] /m.test(comment))
  const lines = found.split("\n").slice(1, -1)
  return `${lines.map((line) => line.replace(/^ \* ?/, "")).join("\n")}\n`
}

/**
 * Options and arguments of the script `file`. `--help` prints its comment and ends the process; a mistake ends it with
 * exit code 2 and says where help is.
 */
export function argumentsOf<const T extends ParseArgsConfig>(file: string, config: T): ReturnType<typeof parseArgs<T>> {
  if (process.argv.slice(2).some((word) => word === "--help" || word === "-h")) {
    process.stdout.write(usage(file))
    process.exit(0)
  }
  try {
    return parseArgs(config)
  } catch (error) {
    process.stderr.write(`${(error as Error).message}; --help shows the options\n`)
    process.exit(2)
  }
}
