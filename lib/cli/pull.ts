import type { Command } from "commander"
import { InputError } from "../errors"
import { pullModel } from "../hub/hub"
import { parseHubName } from "../hub/name"
import { stoppable } from "./support"

export function register(program: Command): void {
  program
    .command("pull")
    .description(
      "Download a model from the Hugging Face hub into the cache that Python uses too: config, tokenizer, chat template and " +
        "safetensors only. Resumes an interrupted download, verifies every file, and rejects an unsupported model " +
        "before downloading its weights. Prints the folder.",
    )
    .argument("<model>", "org/name, or org/name@revision (branch, tag or commit)")
    .addHelpText(
      "after",
      `
Examples:
  musc pull HuggingFaceTB/SmolLM2-135M-Instruct
  musc chat --model HuggingFaceTB/SmolLM2-135M-Instruct        downloads the model if needed
  HF_TOKEN=hf_... musc pull meta-llama/Llama-3.2-1B-Instruct   a gated model

Environment: HF_HOME or HF_HUB_CACHE (where the cache lies), HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_OFFLINE=1 (cache only).
Commands use the cached model; pull again to update it.`,
    )
    .action(async (model: string) => {
      const name = parseHubName(model)
      if (!name) throw new InputError(`a model must be org/name or org/name@revision, got ${model}; correct the name`)
      const folder = await stoppable((signal, show) =>
        pullModel(name, {
          signal,
          onNote: show.note,
          onProgress: (done, total) => show.progress({ stage: `pull ${model}`, unit: "MB", done, total }),
        }),
      )
      console.log(folder)
    })
}
