import { basename } from "node:path"
import { type Command, InvalidArgumentError } from "commander"
import { MuscError } from "../errors"
import { type BatchOptions, executeNotebook, findNotebook, notebookFiles, notebookSite } from "../notebook/batch"
import { installKernel, kernelName } from "../notebook/install"
import { notebookSlides } from "../notebook/slides"

export function register(program: Command): void {
  const command = program
    .command("notebook")
    .description(
      "The notebooks: install their kernel, execute them with parameters, write them as a web site or as slides.",
    )
  command
    .command("kernel")
    .description("install the kernel `musc` into the active Jupyter")
    .option("--user", "among the user's kernels, where VS Code finds it without its Python extension")
    .action(async ({ user }: { user?: boolean }) => {
      const folder = await installKernel(user)
      console.log(`kernel ${kernelName}: ${folder}\nopen a notebook: jupyter lab notebooks/00-start-here.ipynb`)
      console.log(`undo: jupyter kernelspec remove ${kernelName}`)
    })
  command
    .command("run")
    .description("execute a notebook, with parameters")
    .argument("<notebook>", "number (04), name or file")
    .option("--param <name=value>", "value for the cell tagged parameters; may be repeated", pairOption, {})
    .option("-o, --out <file>", "where the executed notebook goes (default: over itself)")
    .option("--live", "with figures that answer to the pointer; by default with pictures, as notebooks are kept")
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
    .description("execute every notebook as it is kept; fails on an error and when a key number drifts")
    .action(async () => {
      for (const file of notebookFiles()) await execute(file, {})
    })
  command
    .command("html")
    .description("write the notebooks as HTML pages that need no network")
    .option("-o, --out <folder>", "folder of the pages", "dist/notebooks")
    .action(async ({ out }: { out: string }) => console.log(await notebookSite(out)))
  command
    .command("slides")
    .description("write the notebooks as slides, which load reveal.js and MathJax from the network")
    .option("-o, --out <folder>", "folder of the slides", "dist/slides")
    .action(async ({ out }: { out: string }) => console.log((await notebookSlides(out)).join("\n")))
}

async function execute(source: string, options: BatchOptions): Promise<void> {
  const { file, seconds, drifts } = await executeNotebook(source, options)
  if (drifts.length)
    throw new MuscError(
      `${file}: a key number has drifted\n  ${drifts.join("\n  ")}\nlook at the notebook; where the change is right, correct \`ranges\` in its metadata`,
    )
  console.log(`${basename(file)}: ${seconds.toFixed(0)} s`)
}

function pairOption(text: string, all: Record<string, string>): Record<string, string> {
  const at = text.indexOf("=")
  if (at < 1) throw new InvalidArgumentError(`must read name=value, got ${text}`)
  return { ...all, [text.slice(0, at)]: text.slice(at + 1) }
}
