import { readFileSync } from "node:fs"
import path from "node:path"
import { Command } from "commander"
import { pathError } from "../data/files"
import { variable } from "../environment"
import { MuscError, PendingJobError, StoppedError } from "../errors"

/** A command of `musc`; its file is loaded only when the command runs, so that the rest starts fast. */
interface Entry {
  name: string
  summary: string
  load: () => { register(program: Command): void }
}

// `require`, since a dynamic import of a CommonJS sibling would need a file extension.
const entries: readonly Entry[] = [
  { name: "run", summary: "run a whole experiment: pairs, training, evaluation, report", load: () => require("./run") },
  {
    name: "decompose",
    summary: "decompose instructions into constraints",
    load: () => require("./stages").decomposeCommand,
  },
  {
    name: "corrupt",
    summary: "drop, negate or replace some constraints",
    load: () => require("./stages").corruptCommand,
  },
  {
    name: "recombine",
    summary: "write both constraint lists as instructions",
    load: () => require("./stages").recombineCommand,
  },
  {
    name: "respond",
    summary: "answer the clean and the corrupted instruction",
    load: () => require("./stages").respondCommand,
  },
  { name: "weigh", summary: "compute the token weights of both answers", load: () => require("./stages").weighCommand },
  { name: "train", summary: "train an adapter on weighted pairs", load: () => require("./train") },
  { name: "evaluate", summary: "answer and grade held-out instructions", load: () => require("./evaluate") },
  { name: "benchmark", summary: "score a model or answers on a benchmark", load: () => require("./benchmark") },
  { name: "compare", summary: "compare two benchmark results", load: () => require("./compare") },
  { name: "chat", summary: "chat with a model, or answer one prompt", load: () => require("./chat") },
  {
    name: "merge",
    summary: "merge an adapter into its base model",
    load: () => require("./merge"),
  },
  {
    name: "export",
    summary: "write pairs, weights and adapters for other programs",
    load: () => require("./export"),
  },
  { name: "plan", summary: "estimate how much memory a model needs", load: () => require("./plan") },
  { name: "pull", summary: "fetch a model from the Hugging Face hub", load: () => require("./pull") },
  {
    name: "push",
    summary: "push an adapter or a checkpoint to the hub, with a model card",
    load: () => require("./push"),
  },
  { name: "native", summary: "build the native TensorFlow backend", load: () => require("./native") },
  { name: "python", summary: "set up the Python environment for --torch", load: () => require("./python") },
  { name: "doctor", summary: "show what this machine can run and what is missing", load: () => require("./doctor") },
  { name: "report", summary: "write the HTML report of a run", load: () => require("./report") },
  { name: "notebook", summary: "run the notebooks, install their kernel", load: () => require("./notebook") },
  {
    name: "world",
    summary: "the embedded world: samples, instructions, training its model",
    load: () => require("./world"),
  },
]

/** Commands by their former names, which still work. */
const formerNames: Readonly<Record<string, string>> = { eval: "benchmark" }

/** The arguments with former command names replaced by present ones; prints a note. */
function renamed(argv: readonly string[]): string[] {
  const at = argv.findIndex((arg, i) => i > 1 && !arg.startsWith("-") && arg !== "help")
  const former = argv[at] ?? ""
  const name = Object.hasOwn(formerNames, former) ? formerNames[former]! : undefined
  if (!name) return [...argv]
  console.error(`note: \`musc ${former}\` is now called \`musc ${name}\` (\`musc evaluate\` is a stage of the method)`)
  return argv.map((arg, i) => (i === at ? name : arg))
}

/** Runs the command line. Sets the exit code: 1 after an error, 130 when stopped on request. */
export async function main(argv: readonly string[] = process.argv): Promise<void> {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0) // the reader of a pipe has seen enough
    throw error
  })
  try {
    const args = renamed(argv)
    await createProgram(args.slice(2)).parseAsync(args)
  } catch (error) {
    process.exitCode = reportError(error)
  }
}

function createProgram(args: readonly string[]): Command {
  const { version, description } = JSON.parse(readFileSync(path.join(__dirname, "../../package.json"), "utf8"))
  const name = variable("npm_command") === "exec" ? "npx musc" : "musc"
  const program = new Command(name)
    .description(description)
    .version(version, "-V, --version")
    .configureOutput({ writeOut: (text) => process.stdout.write(name === "musc" ? text : withNpx(text)) })
    .showHelpAfterError(`Run \`${name} --help\` for the commands, \`${name} <command> --help\` for one of them.`)
  const words = args.filter((arg) => !arg.startsWith("-"))
  const wanted = words[0] === "help" ? words[1] : words[0]
  for (const { name, summary, load } of entries) {
    if (name === wanted) load().register(program)
    else program.command(name).description(summary)
  }
  return program.addHelpText("after", `\nHelp on a command: ${name} <command> --help`)
}

/** A help text whose examples begin with `npx`; the notes beside them keep their column. */
const withNpx = (text: string) =>
  text.replace(/(?<=^ {2}|^ {2}.*(?:\||&&) |^ {2}\w+=\S+ )musc /gm, "npx musc ").replace(/^(?= {45,}\S)/gm, "    ")

/** Control characters spelt out: a message may quote a file that would otherwise speak to the terminal. */
const printable = (text: string) =>
  text.replace(/(?!\n)\p{Cc}/gu, (char) => `\\x${char.codePointAt(0)!.toString(16).padStart(2, "0")}`)

/** Prints an error and returns its exit code: our own errors speak for themselves, others keep their stack. */
function reportError(thrown: unknown): number {
  const error = pathError(thrown)
  if (error instanceof PendingJobError) {
    console.log(error.message)
    return 0
  }
  if (error instanceof MuscError) console.error(printable(`${error.name}: ${error.message}`))
  else console.error(error)
  return error instanceof StoppedError ? 130 : 1
}
