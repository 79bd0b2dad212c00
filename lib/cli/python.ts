import type { Command } from "commander"
import { makePython, pinnedPackages } from "../native/python-env"

export function register(program: Command): void {
  program
    .command("python")
    .description(
      "Set up the Python environment for `--torch`: a venv with pinned versions, every file verified by " +
        "its hash. Safe to run again. Only `--torch` needs it.",
    )
    .option("--python <path>", "Python 3.11 to 3.13 for the venv", "python3")
    .option("--force", "rebuild it from scratch")
    .addHelpText(
      "after",
      `
Examples:
  npx musc python
  npx musc run smoke --torch "torchrun --nproc_per_node 2"

Packages: ${pinnedPackages()
        .filter((name) => /^(torch|transformers|peft|accelerate|safetensors) /.test(name))
        .join(", ")}, and their dependencies.
It is in ~/.cache/musc (or $MUSC_CACHE); delete the folder python-* there to remove it. $MUSC_PYTHON names an environment of
your own instead (the folder that holds bin/). \`npx musc doctor\` names the one in use.`,
    )
    .action(async (options: { python: string; force?: boolean }) => {
      const folder = await makePython(options, (line) => console.log(line))
      console.log(`python: ready, ${folder}`)
    })
}
