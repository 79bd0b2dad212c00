import { basename } from "node:path"
import { type Command, InvalidArgumentError, Option } from "commander"
import pLimit from "p-limit"
import { MuscError } from "../errors"
import { type BatchOptions, executeNotebook, findNotebook, notebookFiles, notebookSite } from "../notebook/batch"
import { installKernel, kernelName } from "../notebook/install"
import { notebookSlides } from "../notebook/slides"

export function register(program: Command): void {
  const command = program
    .command("notebook")
    .description("Run the notebooks, install their kernel, export them as HTML pages or slides.")
  command
    .command("kernel")
    .description("Install the kernel `musc` into the active Jupyter.")
    .option("--user", "for the user, so that VS Code finds it without its Python extension")
    .action(async ({ user }: { user?: boolean }) => {
      const folder = await installKernel(user)
      console.log(`kernel ${kernelName}: ${folder}\nopen a notebook: jupyter lab notebooks/00-start-here.ipynb`)
      console.log(`undo: jupyter kernelspec remove ${kernelName}`)
    })
  command
    .command("run")
    .description("Run a notebook, with other parameters if you like.")
    .argument("<notebook>", "number (04), name or file")
    .addOption(
      new Option("--param <name=value>", "value of a parameter; may be repeated")
        .argParser(pairOption)
        .default({}, "those of the notebook"),
    )
    .option("-o, --out <file>", "file of the executed notebook (default: in place)")
    .option("--live", "with interactive figures instead of pictures")
    .addHelpText(
      "after",
      "\nExample:\n  musc notebook run 05 --param steps=100 --param 'weighting=contrast' --out trained.ipynb",
    )
    .action(
      async (name: string, { param, out, live }: { param: BatchOptions["params"]; out?: string; live?: boolean }) => {
        await execute(findNotebook(name), { params: param, out, mode: live ? "live" : "publish" })
      },
    )
  command
    .command("all")
    .description("Run every notebook, two at a time; fails on an error or when a key number leaves its range.")
    .action(async () => {
      // A kernel that starts or compiles a cell keeps one core busy. One notebook that fails does not end the others.
      const limit = pLimit(2)
      const ended = await Promise.allSettled(notebookFiles().map((file) => limit(() => execute(file, {}))))
      const failures = ended.flatMap((one) => (one.status === "rejected" ? [one.reason] : []))
      for (const failure of failures) if (!(failure instanceof MuscError)) throw failure
      if (failures.length) throw new MuscError([...new Set(failures.map(({ message }) => message))].join("\n"))
    })
  command
    .command("html")
    .description("Export the notebooks as HTML pages that work offline; formulas stay TeX.")
    .option("-o, --out <folder>", "folder of the pages", "dist/notebooks")
    .action(async ({ out }: { out: string }) => console.log(await notebookSite(out)))
  command
    .command("slides")
    .description("Export the notebooks as slides (reveal.js and MathJax load from the network).")
    .option("-o, --out <folder>", "folder of the slides", "dist/slides")
    .action(async ({ out }: { out: string }) => console.log((await notebookSlides(out)).join("\n")))
}

async function execute(source: string, options: BatchOptions): Promise<void> {
  const { file, seconds, drifts } = await executeNotebook(source, options)
  if (drifts.length)
    throw new MuscError(
      `${file}: a key number is outside its range\n  ${drifts.join("\n  ")}\n` +
        "check the notebook; if the change is right, correct `ranges` in its metadata",
    )
  console.log(`${basename(file)}: ${seconds.toFixed(0)} s`)
}

function pairOption(text: string, all: Record<string, string>): Record<string, string> {
  const at = text.indexOf("=")
  if (at < 1) throw new InvalidArgumentError(`must read name=value, got ${text}`)
  return { ...all, [text.slice(0, at)]: text.slice(at + 1) }
}
