import { spawn } from "node:child_process"

export interface RunOptions {
  /** Shows the output as it comes. */
  visible?: boolean
  /** The environment; that of this process by default. */
  env?: NodeJS.ProcessEnv
}

/** Runs a program to its end and gives what it printed. */
export type Run = (command: string, args: readonly string[], options?: RunOptions) => Promise<string>

/** A program that could not be started (`missing`) or ended with an error; `output` is all that it said. */
export class ChildError extends Error {
  constructor(
    readonly command: string,
    readonly missing: boolean,
    readonly output: string,
  ) {
    super(missing ? `${command} is not installed` : `${command} failed: ${lastLines(output)}`)
  }
}

export const run: Run = (command, args, { visible = false, env } = {}) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "pipe"] })
    let printed = ""
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => {
      printed += chunk
      output += chunk
      if (visible) process.stderr.write(chunk)
    })
    child.stderr.on("data", (chunk: Buffer) => {
      output += chunk
      if (visible) process.stderr.write(chunk)
    })
    child.on("error", (error: NodeJS.ErrnoException) =>
      reject(new ChildError(command, error.code === "ENOENT", String(error))),
    )
    child.on("close", (code, signal) =>
      code === 0 ? resolve(printed) : reject(new ChildError(command, false, output || `ended by ${signal ?? code}`)),
    )
  })

function lastLines(text: string): string {
  return text.trim().split("\n").slice(-6).join("\n")
}
