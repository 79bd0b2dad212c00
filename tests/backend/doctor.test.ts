import { expect, it } from "vitest"
import { ChildError, type Run } from "../../lib/backend/child"
import { examine, formatFacts } from "../../lib/backend/doctor"
import { type BackendName, type Loader, loaders } from "../../lib/backend/tf"
import { BackendError } from "../../lib/errors"

const absent =
  (name: string): Loader =>
  async () => {
    throw new BackendError(`${name}: not here; install it`)
  }

const bare: Record<BackendName, Loader> = {
  tensorflow: absent("tensorflow"),
  webgpu: absent("webgpu"),
  wasm: absent("wasm"),
  cpu: loaders.cpu,
}

const noPython: Run = async (command) => {
  throw new ChildError(command, true, "ENOENT")
}

it("tells backends that run, with their speed, from those that do not, with the remedy", async () => {
  const facts = await examine(noPython, bare, "")
  const find = (name: string) => facts.find((fact) => fact.name === name)
  expect(find("tensorflow")).toMatchObject({ state: "missing", value: "not here", remedy: "install it" })
  expect(find("wasm")).toMatchObject({ state: "optional" })
  expect(Number(/matmul ([\d.]+) GFLOPS/.exec(find("cpu")!.value)![1])).toBeGreaterThan(0)
  expect(find("choice")).toMatchObject({ value: "cpu" })
})

it("reports a forced backend that cannot run instead of giving up", async () => {
  const facts = await examine(noPython, bare, "wasm")
  expect(facts.find(({ name }) => name === "choice")).toMatchObject({
    state: "missing",
    value: "wasm: not here; install it",
  })
})

it("reports a machine without Python as complete, since musc runs without", async () => {
  const facts = await examine(noPython, bare, "")
  expect(facts.filter(({ topic }) => topic === "python")).toEqual([
    { topic: "python", name: "python", state: "optional", value: "not installed" },
  ])
})

it("lists the versions of Python packages that serve comparisons", async () => {
  const python: Run = async (_, args) => (args[1]!.includes("metadata") ? '{"python": "3.11.7", "peft": null}' : "")
  const facts = (await examine(python, bare, "")).filter(({ topic }) => topic === "python")
  expect(facts).toEqual([
    { topic: "python", name: "python", state: "ok", value: "3.11.7" },
    { topic: "python", name: "peft", state: "optional", value: "not installed" },
  ])
})

it("finds that danfojs-node shares our tfjs", async () => {
  const facts = await examine(noPython, bare, "")
  expect(facts.find(({ name }) => name === "one tfjs")).toMatchObject({ state: "ok" })
})

it("prints a topic a paragraph and each remedy below what it cures", () => {
  const text = formatFacts([
    { topic: "system", name: "node", state: "ok", value: "v20" },
    { topic: "backends", name: "tensorflow", state: "missing", value: "not built", remedy: "run `npx musc native`" },
  ])
  expect(text.split("\n")).toEqual([
    "system",
    "  ok      node       v20",
    "",
    "backends",
    "  MISSING tensorflow not built",
    "                     -> run `npx musc native`",
  ])
})
