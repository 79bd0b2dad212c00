import type { Command } from "commander"
import { buildNative } from "../native/build"

export function register(program: Command): void {
  program
    .command("native")
    .description(
      "Build the native TensorFlow backend: compile the binding of @tensorflow/tfjs-node-gpu against the TensorFlow of the " +
        "active Python or, without one, against a pinned CPU wheel that pip fetches once (270 MB). Needs g++ and Python 3.",
    )
    .option("--wheel <path>", "use this wheel: a .whl file or a folder holding an unpacked one")
    .option("--python <path>", "ask this Python for its TensorFlow, and use its pip")
    .option("--cuda", "insist on CUDA: without a CUDA TensorFlow in Python, fetch one with its libraries (several GB)")
    .option("--force", "build again although everything is up to date")
    .addHelpText(
      "after",
      `
Examples:
  musc native                          use what is there, else fetch the CPU library
  musc native --cuda                   the same for an NVIDIA GPU (driver 525 or later)
  musc native --python .venv/bin/python
  musc native --wheel tensorflow_cpu-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl

Running it twice does no harm. To undo: delete the folder lib/ of @tensorflow/tfjs-node-gpu in node_modules, and
~/.cache/musc (or $MUSC_CACHE). \`musc doctor\` shows the result.`,
    )
    .action(async (options: { wheel?: string; python?: string; cuda?: boolean; force?: boolean }) => {
      await buildNative({ ...options, log: (line) => console.log(line) })
    })
}
