import { statSync } from "node:fs"
import { join } from "node:path"
import type { Command } from "commander"
import { gibibytes } from "../data/numbers"
import { run } from "../device/child"
import { type BackendName, supposedDevice } from "../device/device"
import { memory } from "../machine"
import { loadConfig } from "../model/config"
import { describePlan, plan as planOf } from "../model/executor"
import { type Batch, loraCount, planNeed, planStages, workOf } from "../model/memory"
import { parameterCount } from "../model/weights"
import { modelFolder } from "../runs/model"
import { aligned } from "../runs/results"
import { countOption, stoppable } from "./support"

interface Options {
  model: string
  rank: number
  length: number
  batch: number
  json?: boolean
}

export function register(program: Command): void {
  program
    .command("plan")
    .description(
      "Estimate the memory a model needs to load, generate, weigh and train on each backend, and whether it fits this " +
        "machine. Reads only config.json and the tokenizer; no weights are downloaded.",
    )
    .option("--model <model>", "model folder, org/name[@revision] on the hub, or world", "world")
    .option("--rank <r>", "rank of the LoRA, on all linear layers", countOption, 8)
    .option(
      "--length <tokens>",
      "tokens per row: a prompt with its answer (training: with both answers)",
      countOption,
      1024,
    )
    .option("--batch <rows>", "rows per forward pass; training splits them by tokenBudget", countOption, 4)
    .option("--json", "print the figures as JSON, in bytes")
    .addHelpText(
      "after",
      `
Examples:
  musc plan --model Qwen/Qwen2.5-0.5B-Instruct
  musc plan --model path/to/Llama-3.2-1B --rank 16 --length 2048 --batch 1

"train, checkpointed" is training with gradient checkpointing: less memory, a third more work.
webgpu and CUDA keep tensors on the device; their column tells host + device. Peaks on the native backend's CPU are
within 15 % of what was measured; those of other backends are estimates.`,
    )
    .action(plan)
}

/** A way of running: a backend, on a GPU or not, and the bytes that it may take. */
interface Place {
  name: string
  backend: BackendName
  gpu: boolean
  host: number
  device: number | null
}

async function plan({ model, json, ...shape }: Options): Promise<void> {
  const folder = await stoppable((signal, show) =>
    modelFolder(model, { signal, settingsOnly: true, onProgress: show.progress }),
  )
  const config = loadConfig(folder)
  const tokenizerBytes = statSync(join(folder, "tokenizer.json"), { throwIfNoEntry: false })?.size ?? 0
  const work: Batch = { ...shape, tokenizerBytes }
  const device = await gpuMemory()
  const host = memory().available
  // A WebAssembly memory has at most 4 GiB.
  const places: Place[] = [
    { name: "tensorflow, CPU", backend: "tensorflow", gpu: false, host, device: null },
    { name: "tensorflow, CUDA", backend: "tensorflow", gpu: true, host, device },
    { name: "webgpu", backend: "webgpu", gpu: true, host, device },
    { name: "wasm", backend: "wasm", gpu: false, host: Math.min(host, 4 * GiB), device: null },
    { name: "cpu", backend: "cpu", gpu: false, host, device: null },
  ]
  const rows = places.map((place) => ({
    ...place,
    needs: planStages.map((stage) => ({ stage, ...planNeed(config, stage, work, supposedDevice(place)) })),
  }))
  const parameters = parameterCount(config)
  if (json) {
    console.log(JSON.stringify({ model, ...work, parameters, lora: loraCount(config, work.rank), rows }, null, 2))
    return
  }
  const table = [
    ["", ...planStages],
    ...rows.map(({ needs, ...place }) => [place.name, ...needs.map((need) => cell(need, place))]),
  ]
  const count = (n: number) => (n < 1e9 ? `${(n / 1e6).toFixed(1)} M` : `${(n / 1e9).toFixed(2)} G`)
  console.log(
    [
      `${model}: ${count(parameters)} parameters, LoRA of rank ${work.rank} ${count(loraCount(config, work.rank))}; ` +
        `${work.batch} rows of ${work.length} tokens`,
      "",
      aligned(table),
      "",
      ...planStages.slice(1).map((stage) => {
        const device = supposedDevice(places[0]!)
        return `${stage}, on this CPU: ${describePlan(planOf(device, parameters, workOf(stage)))}`
      }),
      "",
      `This machine: ${gib(host)} of memory available, ${device === null ? "no NVIDIA GPU seen" : `${gib(device)} on the GPU`}.`,
      'Peak GiB. "!": does not fit; "?": not known here. To save memory, lower --batch or --length.',
    ].join("\n"),
  )
}

const GiB = 2 ** 30
const gib = (bytes: number) => gibibytes(bytes, bytes < 10 * GiB ? 2 : 1)

function cell({ host, device }: { host: number; device: number }, place: Place): string {
  const figure = (bytes: number) => (bytes / GiB).toFixed(2)
  if (!device) return figure(host) + (host > place.host ? " !" : "")
  const verdict = place.device === null ? " ?" : device > place.device || host > place.host ? " !" : ""
  return `${figure(host)} + ${figure(device)}${verdict}`
}

/** Bytes of the first NVIDIA GPU; null without one. */
async function gpuMemory(): Promise<number | null> {
  const said = await run("nvidia-smi", ["--query-gpu=memory.total", "--format=csv,noheader,nounits"]).catch(() => "")
  const mebibytes = Number.parseFloat(said)
  return mebibytes > 0 ? mebibytes * 2 ** 20 : null
}
