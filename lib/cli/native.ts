import type { Command } from "commander"
import { buildNative } from "../native/build"

export function register(program: Command): void {
  program
    .command("native")
    .description(
      "Build the native TensorFlow backend: compile the binding of @tensorflow/tfjs-node-gpu against the TensorFlow of the " +
        "active Python or, if it has none, against a pinned CPU wheel that pip downloads once (270 MB). Needs g++ and Python 3.",
    )
    .option("--wheel <path>", "use this wheel: a .whl file or an unpacked folder")
    .option("--python <path>", "use the TensorFlow and pip of this Python")
    .option("--cuda", "require CUDA: download a CUDA TensorFlow with its libraries (several GB) if Python has none")
    .option("--force", "rebuild even if everything is up to date")
    .addHelpText(
      "after",
      `
Examples:
  musc native                          use the TensorFlow that is there, or download the CPU library
  musc native --cuda                   the same for an NVIDIA GPU (driver 525 or later)
  musc native --python .venv/bin/python
  musc native --wheel tensorflow_cpu-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl

Safe to run again. To remove it, delete the folder lib/ of @tensorflow/tfjs-node-gpu in node_modules, and
~/.cache/musc (or $MUSC_CACHE). \`musc doctor\` shows the result.`,
    )
    .action(async (options: { wheel?: string; python?: string; cuda?: boolean; force?: boolean }) => {
      await buildNative({ ...options, log: (line) => console.log(line) })
    })
}
