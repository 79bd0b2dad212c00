import { type Command, Option } from "commander"
import { type BackendName, backendNames, useBackend } from "../device/tf"
import type { FloatDtype } from "../model/floats"
import { mergeAdapter } from "../model/merge"
import { modelFolder } from "../runs/model"
import { stoppable } from "./support"

interface Options {
  model: string
  adapter: string
  out: string
  dtype?: Lowercase<FloatDtype>
  backend?: BackendName
  force?: boolean
}

export function register(program: Command): void {
  program
    .command("merge")
    .description(
      "Merge an adapter into its base model. The result is a plain Hugging Face checkpoint that Transformers, vLLM and musc load without " +
        "PEFT. Weights are streamed, so memory does not depend on the model's size.",
    )
    .requiredOption("--model <model>", "the adapter's base model: folder, org/name[@revision] on the hub, or world")
    .requiredOption("--adapter <folder>", "PEFT adapter, e.g. runs/smoke/seed-0/train/musc/adapter")
    .requiredOption("--out <folder>", "new folder for the checkpoint")
    .addOption(
      new Option("--dtype <type>", "type of the weights (default: as in the model)").choices(["bf16", "f32", "f16"]),
    )
    .addOption(new Option("--backend <name>", "TensorFlow.js backend").choices([...backendNames]))
    .option("--force", "merge even if the adapter names another base model")
    .addHelpText(
      "after",
      `
Examples:
  musc merge --model world --adapter adapters/musc/adapter --out merged
  musc merge --model Qwen/Qwen2.5-0.5B-Instruct --adapter adapters/musc/adapter --out merged --dtype bf16
  musc chat --model merged

A GGUF file for llama.cpp: \`python convert_hf_to_gguf.py merged --outtype auto\`, with its converter.
bf16 has 8 bits of precision, so small updates can be lost in rounding. f32 keeps them, at twice the size.`,
    )
    .action(merge)
}

/** Merges, and prints where. */
export async function merge({ model, adapter, out, dtype, backend, force }: Options): Promise<void> {
  await stoppable(async (signal, show) => {
    const folder = await modelFolder(model, { signal, onProgress: show.progress })
    show.note((await useBackend(backend)).reason)
    await mergeAdapter(folder, adapter, out, {
      dtype: dtype?.toUpperCase() as FloatDtype | undefined,
      force,
      onNote: show.note,
      onTensor: (done, total) => show.progress({ stage: "merge", unit: "tensors", done, total }),
    })
  })
  console.log(out)
}
