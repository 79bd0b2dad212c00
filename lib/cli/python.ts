import type { Command } from "commander"
import { makePython, pinnedPackages } from "../native/python-env"

export function register(program: Command): void {
  program
    .command("python")
    .description(
      "Make the Python environment that `--torch` scores and trains with: a venv with exact versions, each file checked by " +
        "its hash. Running it again changes nothing. Only `--torch` needs it.",
    )
    .option("--python <path>", "the Python to make it with, 3.11 to 3.13", "python3")
    .option("--force", "make it again from scratch")
    .addHelpText(
      "after",
      `
Examples:
  npx musc python
  npx musc run smoke --torch "torchrun --nproc_per_node 2"

Packages: ${pinnedPackages()
        .filter((name) => /^(torch|transformers|peft|accelerate|safetensors) /.test(name))
        .join(", ")}, and what they need.
It lies in ~/.cache/musc (or $MUSC_CACHE); delete the folder python-* there to undo it. $MUSC_PYTHON names an environment of
your own instead (the folder that holds bin/). \`npx musc doctor\` names the one in use.`,
    )
    .action(async (options: { python: string; force?: boolean }) => {
      const folder = await makePython(options, (line) => console.log(line))
      console.log(`python: ready, ${folder}`)
    })
}
