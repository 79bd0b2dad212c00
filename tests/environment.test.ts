import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { afterEach, expect, it } from "vitest"
import { cacheFolder, setDefault, variable, withVariables } from "../lib/environment"

const lib = join(__dirname, "../lib")
const saved = { ...process.env }

afterEach(() => {
  process.env = { ...saved }
})

it("one file asks about the machine and one reads environment variables", () => {
  const machine =
    /process\.(platform|arch|availableMemory|constrainedMemory)\b|(?<!\{ tmpdir \} from )"node:os"|cpuinfo|driver\/nvidia/
  const askers = (question: RegExp) =>
    readdirSync(lib, { recursive: true, encoding: "utf8" }).filter(
      (file) => file.endsWith(".ts") && question.test(readFileSync(join(lib, file), "utf8")),
    )
  expect(askers(machine).sort()).toEqual(["environment.ts", "machine.ts"]) // the first for the home folder
  expect(askers(/process\.env\b/)).toEqual(["environment.ts"])
})

it("reads a variable when it is asked for, and takes an empty one for unset", () => {
  delete process.env.MUSC_BACKEND
  expect(variable("MUSC_BACKEND")).toBeUndefined()
  process.env.MUSC_BACKEND = "wasm"
  expect(variable("MUSC_BACKEND")).toBe("wasm")
  process.env.MUSC_BACKEND = ""
  expect(variable("MUSC_BACKEND")).toBeUndefined()
})

it("gives each variable its type", () => {
  Object.assign(process.env, {
    TF_NUM_INTRAOP_THREADS: "3",
    HF_HUB_OFFLINE: "yes",
    HF_ENDPOINT: "https://mirror.example/",
    LD_LIBRARY_PATH: "/a::/b",
  })
  expect(variable("TF_NUM_INTRAOP_THREADS")).toBe(3)
  expect(variable("HF_HUB_OFFLINE")).toBe(true)
  expect(variable("HF_ENDPOINT")).toBe("https://mirror.example")
  expect(variable("LD_LIBRARY_PATH")).toEqual(["/a", "/b"])
})

it.each([
  ["TF_NUM_INTRAOP_THREADS", "two", "TF_NUM_INTRAOP_THREADS: must be a whole number, got two; correct it"],
  ["MUSC_NOTEBOOK", "paper", "MUSC_NOTEBOOK: must be publish or live, got paper; correct it"],
  ["MUSC_CUDA_GRAPHS", "1", "MUSC_CUDA_GRAPHS: must be functions or xla, got 1; correct it"],
  ["HF_ENDPOINT", "mirror", "HF_ENDPOINT: must be a URL, got mirror; correct it"],
] as const)("refuses %s=%s and names the variable", (name, value, message) => {
  process.env[name] = value
  expect(() => variable(name)).toThrow(message)
})

it("leaves what the user set, and hands all variables to a program that it starts", () => {
  process.env.TF_CPP_MIN_LOG_LEVEL = "0"
  setDefault("TF_CPP_MIN_LOG_LEVEL", "2")
  expect(withVariables({ OMP_NUM_THREADS: "1" })).toMatchObject({ TF_CPP_MIN_LOG_LEVEL: "0", OMP_NUM_THREADS: "1" })
})

it("keeps fetched files in MUSC_CACHE, else below XDG_CACHE_HOME", () => {
  process.env.XDG_CACHE_HOME = "/cache"
  process.env.MUSC_CACHE = ""
  expect(cacheFolder()).toBe(join("/cache", "musc"))
  process.env.MUSC_CACHE = "/mine"
  expect(cacheFolder()).toBe("/mine")
})
