import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { pythonFolder } from "../../../lib/native/python-env"
import type { Work } from "./kills"

const cell = (id: string, source: string) => ({
  ...{ id, cell_type: "code", source, metadata: {}, execution_count: null, outputs: [] },
})

/** A notebook that loads the model and answers. */
const notebook = {
  cells: [
    cell("a", 'import { openLocal, useBackend } from "musc"\nawait useBackend()'),
    cell(
      "b",
      `const engine = openLocal(${JSON.stringify(join(__dirname, "../../../data/models/world-small"))}).engine()
for (const seed of [1, 2, 3, 4]) {
  const messages = [{ role: "user" as const, content: "Write a song." }]
  console.log((await engine.generate({ messages, temperature: 0, maxTokens: 60, seed })).text)
}`,
    ),
  ],
  metadata: { kernelspec: { name: "musc", display_name: "musc", language: "typescript" } },
  nbformat: 4,
  nbformat_minor: 5,
}

/**
 * Commands that can be stopped at any moment and started again: a whole run without and with the cache that runs share,
 * each stage by itself, evaluation, benchmark, training in process and by Python, an adapter merged and exported, a
 * notebook, a download. `run`: the folder of an undisturbed run; `small`: its settings.
 */
export function worksOf(root: string, run: string, small: readonly string[]): Work[] {
  const stage = (name: string) => join(run, "seed-0", `${name}.jsonl`)
  mkdirSync(join(root, "kills"), { recursive: true })
  const book = join(root, "kills.ipynb")
  writeFileSync(book, JSON.stringify(notebook))
  const model = ["--model", "world-small"]
  const two = [...model, "--workers", "2"]
  const step = ["--set", "checkpointEvery=1", "--set", "batchSize=2"]
  const rows = (name: string, from: string): Work => ({
    name,
    args: (dir) => [name, stage(from), "-o", join(dir, "out.jsonl"), ...two],
  })
  const adapter = join(run, "seed-0/train/musc/adapter")
  if (!existsSync(adapter)) throw new Error(`no adapter in ${readdirSync(join(run, "seed-0"))}`)
  const python = pythonFolder()
  const jupyter = spawnSync("jupyter", ["execute", "--version"]).status === 0
  return [
    { name: "run", args: (dir) => ["run", "smoke", ...small, "--no-cache", "--out", dir] },
    { name: "run with a cache", args: (dir) => ["run", "smoke", ...small, "--out", join(dir, "run")] },
    rows("corrupt", "decompose"),
    rows("recombine", "corrupt"),
    rows("respond", "recombine"),
    rows("weigh", "respond"),
    { name: "train", args: (dir) => ["train", stage("weigh"), "-o", dir, ...model, ...step] },
    {
      name: "job of Python",
      args: (dir) => ["train", stage("weigh"), "-o", dir, ...model, ...step, "--torch", "torchrun --nproc_per_node 1"],
      without: python ? undefined : "npx musc python was not run",
    },
    {
      name: "evaluate",
      args: (dir) => ["evaluate", "-o", join(dir, "out.jsonl"), ...two, "--limit", "4", "--set", "evalTemperatures=0"],
    },
    { name: "benchmark", args: (dir) => ["benchmark", "world", ...two, "--limit", "6", "--out", dir] },
    {
      name: "merge",
      args: (dir) => ["merge", ...model, "--adapter", adapter, "--out", join(dir, "merged")],
      once: true,
    },
    {
      name: "notebook",
      args: (dir) => ["notebook", "run", book, "-o", join(dir, "out.ipynb")],
      without: jupyter ? undefined : "no Jupyter on the PATH",
    },
    { name: "pull", args: () => ["pull", "org/model"], env: (dir) => ({ HF_HOME: dir }) },
  ]
}
