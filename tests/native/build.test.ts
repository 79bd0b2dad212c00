import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs"
import os from "node:os"
import path from "node:path"
import { beforeEach, describe, expect, it } from "vitest"
import { temporaryFor } from "../../lib/data/files"
import { ChildError, type Run } from "../../lib/device/child"
import { buildNative } from "../../lib/native/build"

// A package folder and a wheel made of empty files, and tools that only write what they are asked to make.
let folder: string
let wheel: string
let calls: string[]

const tools = (product = [7, 10, 15, 22]): { run: Run; folder: string } => ({
  folder,
  run: async (command, args) => {
    calls.push(command)
    const output = args[args.indexOf("-o") + 1]
    if (args.includes("-o")) writeFileSync(output!, `compiled by ${command}, call ${calls.length}`)
    return command === process.execPath ? JSON.stringify({ version: "2.21.0", cuda: false, product }) : ""
  },
})

const failing = (error: ChildError): { run: Run; folder: string } => ({
  folder,
  run: async () => {
    throw error
  },
})

const binding = () => path.join(folder, "lib/napi-v8/tfjs_binding.node")

beforeEach(() => {
  const root = mkdtempSync(path.join(os.tmpdir(), "musc-native-"))
  folder = path.join(root, "package")
  wheel = path.join(root, "site-packages")
  calls = []
  const files = {
    [`${folder}/binding/tfjs_backend.cc`]: "backend",
    [`${folder}/binding/tfjs_binding.cc`]: "binding",
    [`${wheel}/tensorflow/libtensorflow_cc.so.2`]: "cc",
    [`${wheel}/tensorflow/libtensorflow_framework.so.2`]: "framework",
    [`${wheel}/tensorflow/include/tensorflow/c/c_api.h`]: "",
    [`${wheel}/tensorflow/python/platform/build_info.py`]: "[('is_cuda_build', True), ('is_rocm_build', False)]",
    [`${wheel}/nvidia/cudnn/lib/libcudnn.so.9`]: "cudnn",
  }
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(file, text)
  }
})

describe.skipIf(process.platform !== "linux")("the native build", () => {
  it("compiles, checks, installs, and says each step", async () => {
    const lines: string[] = []
    const build = await buildNative({ wheel, log: (line) => lines.push(line) }, tools())
    expect(build).toMatchObject({ built: true, version: "2.21.0", device: "cpu", binding: binding() })
    expect(readFileSync(binding(), "utf8")).toContain("compiled by")
    expect(existsSync(path.join(folder, "lib/napi-v8/tensorflow/libtensorflow_cc.so.2"))).toBe(true)
    expect(lines.map((line) => line.split(" ")[0])).toEqual(["compiling", "checking", "built:"])
  })

  it("does nothing the second time", async () => {
    await buildNative({ wheel }, tools())
    calls = []
    expect(await buildNative({}, tools())).toMatchObject({ built: false, version: "2.21.0" })
    expect(calls).toEqual([])
  })

  it.each([
    ["the binding's source changes", () => writeFileSync(`${folder}/binding/tfjs_backend.cc`, "newer backend")],
    ["TensorFlow is upgraded", () => writeFileSync(`${wheel}/tensorflow/libtensorflow_cc.so.2`, "newer cc")],
    ["its record is cut short", () => writeFileSync(`${folder}/lib/napi-v8/musc.json`, '{"recipe": "')],
  ])("builds again when %s", async (_, change) => {
    await buildNative({ wheel }, tools())
    change()
    expect((await buildNative({ wheel }, tools())).built).toBe(true)
  })

  it("builds again when it is forced to, or asked for another wheel", async () => {
    await buildNative({ wheel }, tools())
    expect((await buildNative({ force: true, wheel }, tools())).built).toBe(true)
    expect((await buildNative({ wheel: path.join(wheel, "tensorflow") }, tools())).built).toBe(true)
  })

  it("keeps the former binding when the new one multiplies wrongly, and leaves nothing behind", async () => {
    await buildNative({ wheel }, tools())
    const former = readFileSync(binding(), "utf8")
    await expect(buildNative({ force: true, wheel }, tools([0, 0, 0, 0]))).rejects.toThrow(/came out as 0,0,0,0/)
    expect(readFileSync(binding(), "utf8")).toBe(former)
    expect(readdirSync(path.join(folder, "lib"))).toEqual(["napi-v8"])
  })

  it("removes what a killed build left, but not the folder of one that is still running", async () => {
    const running = temporaryFor(path.join(folder, "lib/napi-v8"))
    const killed = running.replace(/-\d+-\d+-(\d+)\.tmp$/, `-${spawnSync("true").pid}-7-$1.tmp`)
    for (const left of [killed, running]) mkdirSync(left, { recursive: true })
    await buildNative({ wheel }, tools())
    expect(existsSync(killed)).toBe(false)
    expect(existsSync(running)).toBe(true)
  })

  it("reaches the CUDA libraries of a CUDA wheel in the place that libtensorflow searches, next to its own folder", async () => {
    const { library } = await buildNative({ wheel }, tools())
    expect(library.cuda).toBe(true)
    const origin = realpathSync(path.join(folder, "lib/napi-v8/tensorflow"))
    expect(existsSync(path.join(origin, "../nvidia/cudnn/lib/libcudnn.so.9"))).toBe(true)
  })

  it("names the package to install when there is no compiler", async () => {
    const none = failing(new ChildError("g++", true, "ENOENT"))
    await expect(buildNative({ wheel }, none)).rejects.toThrow(/C\+\+17 compiler.*apt-get install g\+\+/)
  })

  it("names the package to install when there is no Python", async () => {
    const none = failing(new ChildError("python3", true, "ENOENT"))
    await expect(buildNative({}, none)).rejects.toThrow(/Python 3\.8.*apt-get install python3/)
  })

  it("says what a wheel without the libraries lacks", async () => {
    await expect(buildNative({ wheel: folder }, tools())).rejects.toThrow(/must carry libtensorflow_cc\.so\.2/)
  })
})
