import { existsSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, expect, it, vi } from "vitest"
import { ChildError, type Run } from "../../lib/device/child"
import { type BackendName, type Loader, loaders } from "../../lib/device/tf"
import { BackendError } from "../../lib/errors"
import { nativeBuild } from "../../lib/native/build"
import { examine, formatFacts } from "../../lib/native/doctor"

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
  expect(facts.filter(({ topic, name }) => topic === "python" && name !== "environment of --torch")).toEqual([
    { topic: "python", name: "python", state: "optional", value: "not installed" },
  ])
})

it("lists the versions of Python packages that serve comparisons", async () => {
  const python: Run = async (_, args) => (args[1]!.includes("metadata") ? '{"python": "3.11.7", "peft": null}' : "")
  const facts = (await examine(python, bare, "")).filter(
    ({ topic, name }) => topic === "python" && name !== "environment of --torch",
  )
  expect(facts).toEqual([
    { topic: "python", name: "python", state: "ok", value: "3.11.7" },
    { topic: "python", name: "peft", state: "optional", value: "not installed" },
  ])
})

afterEach(() => void vi.unstubAllEnvs())

const gpu = (facts: Awaited<ReturnType<typeof examine>>) => facts.filter(({ topic }) => topic === "cuda")

it("names every CUDA and cuDNN library that a machine with a GPU lacks, and what brings it", async () => {
  const driver = join(mkdtempSync(join(tmpdir(), "driver-")), "version")
  writeFileSync(driver, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54\nGCC version: 12\n")
  const ldconfig: Run = async (command) => {
    if (command.endsWith("ldconfig")) return "\tlibcuda.so.1 (libc6,x86-64) => /usr/lib/libcuda.so.1\n"
    throw new ChildError(command, true, "ENOENT")
  }
  const facts = gpu(await examine(ldconfig, bare, "", driver))
  expect(facts[0]).toMatchObject({ name: "NVIDIA driver", state: "ok", value: expect.stringContaining("550.54") })
  expect(facts.find(({ name }) => name === "libcuda.so.1")).toMatchObject({ state: "ok" })
  for (const name of ["libcudart.so.12", "libcublas.so.12", "libcudnn.so.9"]) {
    const { state, remedy } = facts.find((fact) => fact.name === name)!
    expect([state, remedy]).toEqual(["missing", expect.stringContaining("musc native --cuda")])
  }
})

it("lists the same on a machine without a GPU, where none of it is missed", async () => {
  const facts = gpu(await examine(noPython, bare, "", "/nowhere"))
  expect(facts[0]).toMatchObject({
    name: "NVIDIA driver",
    state: "optional",
    remedy: expect.stringContaining("driver"),
  })
  expect(facts.map(({ name }) => name)).toEqual(expect.arrayContaining(["libcudnn.so.9", "libcublas.so.12"]))
  expect(facts.some(({ state }) => state === "missing")).toBe(false)
})

const toolkit = existsSync("/usr/local/cuda") || existsSync(join(nativeBuild()?.library.folder ?? "", "../nvidia"))

it.skipIf(toolkit)("names what XLA needs for a GPU where it is not found, and where it is", async () => {
  const folder = mkdtempSync(join(tmpdir(), "cuda-"))
  const driver = join(folder, "version")
  writeFileSync(driver, "NVRM version: 550.54\n")
  const names = ["ptxas", "libdevice.10.bc"]
  const tools = async () => gpu(await examine(noPython, bare, "", driver)).filter(({ name }) => names.includes(name))
  vi.stubEnv("PATH", folder)
  const absent = await tools()
  expect(absent.map(({ name }) => name)).toEqual(names)
  for (const { state, remedy } of absent) {
    expect(state).toBe("optional")
    expect(remedy).toMatch(/nvidia-cuda-nvcc-cu12.*--xla_gpu_cuda_data_dir/)
  }
  for (const part of ["bin", "nvvm/libdevice"]) mkdirSync(join(folder, part), { recursive: true })
  for (const file of ["bin/ptxas", "nvvm/libdevice/libdevice.10.bc"]) writeFileSync(join(folder, file), "")
  vi.stubEnv("CUDA_HOME", folder)
  for (const { state, remedy } of await tools())
    expect([state, remedy]).toEqual(["optional", `set XLA_FLAGS=--xla_gpu_cuda_data_dir=${folder}`])
  vi.stubEnv("XLA_FLAGS", `--xla_dump_to=x --xla_gpu_cuda_data_dir=${folder}`)
  expect(await tools()).toMatchObject([
    { state: "ok", value: join(folder, "bin") },
    { state: "ok", value: join(folder, "nvvm/libdevice") },
  ])
  vi.stubEnv("XLA_FLAGS", "")
  vi.stubEnv("PATH", join(folder, "bin"))
  expect((await tools()).map(({ state }) => state)).toEqual(["ok", "optional"])
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
