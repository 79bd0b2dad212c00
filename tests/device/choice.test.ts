import { describe, expect, it } from "vitest"
import { type BackendName, chooseBackend, type Loader, useBackend } from "../../lib/device/tf"
import { BackendError } from "../../lib/errors"
import { nativeBuild } from "../../lib/native/build"

const runs =
  (device: "cuda" | "gpu" | "software gpu" | "cpu", detail: string): Loader =>
  async () => ({ device, detail })

const fails =
  (message: string): Loader =>
  async () => {
    throw new BackendError(message)
  }

const machine: Record<BackendName, Loader> = {
  tensorflow: runs("cuda", "libtensorflow 2.21.0"),
  webgpu: runs("gpu", "Radeon"),
  wasm: runs("cpu", "one thread"),
  cpu: runs("cpu", "plain JavaScript"),
}

describe("the choice of a backend", () => {
  it("takes tensorflow first and says on which device it runs", async () => {
    expect(await chooseBackend(undefined, machine)).toEqual({
      name: "tensorflow",
      device: "cuda",
      detail: "libtensorflow 2.21.0",
      reason: "backend: tensorflow (cuda; libtensorflow 2.21.0)",
    })
  })

  it("goes down the list and says in one line why each faster one was passed over", async () => {
    const tensorflow = fails("tensorflow: binding not built; run `npx musc native`")
    const second = await chooseBackend(undefined, { ...machine, tensorflow })
    expect(second.reason).toBe("backend: webgpu (gpu; Radeon) - tensorflow: binding not built, run `npx musc native`")

    const webgpu = fails("webgpu: no adapter")
    const third = await chooseBackend(undefined, { ...machine, tensorflow, webgpu })
    expect(third.name).toBe("wasm")
    expect(third.reason).toMatch(/tensorflow: .*; webgpu: no adapter$/)
    expect(third.reason).not.toContain("\n")

    const last = await chooseBackend(undefined, { ...machine, tensorflow, webgpu, wasm: fails("wasm: no file") })
    expect(last.name).toBe("cpu")
  })

  it("passes over a software GPU, which is slower than wasm, unless it is forced", async () => {
    const software = { ...machine, tensorflow: fails("tensorflow: none"), webgpu: runs("software gpu", "SwiftShader") }
    expect(await chooseBackend(undefined, software)).toMatchObject({
      name: "wasm",
      reason: "backend: wasm (cpu; one thread) - tensorflow: none; webgpu: only a software GPU (SwiftShader)",
    })
    expect(await chooseBackend("webgpu", software)).toMatchObject({ name: "webgpu", device: "software gpu" })
  })

  it("loads nothing but the forced one", async () => {
    const others = { tensorflow: neverLoaded, webgpu: neverLoaded, cpu: neverLoaded }
    expect((await chooseBackend("wasm", { ...machine, ...others })).reason).toBe(
      "backend: wasm (cpu; one thread) - forced",
    )
  })

  it("does not fall back from a forced one that cannot run, but hands on its remedy", async () => {
    const broken = { ...machine, tensorflow: fails("tensorflow: binding not built; run `npx musc native`") }
    await expect(chooseBackend("tensorflow", broken)).rejects.toThrow(/run `npx musc native`/)
    await expect(chooseBackend("tensorflow", broken)).rejects.toBeInstanceOf(BackendError)
  })

  it("lists the valid names when the forced one is unknown", async () => {
    await expect(chooseBackend("cuda", machine)).rejects.toThrow(/tensorflow, webgpu, wasm, cpu, got "cuda"/)
  })

  it("lets a defect of a loader through instead of hiding it behind a slower backend", async () => {
    const defect: Loader = async () => {
      throw new TypeError("a defect")
    }
    await expect(chooseBackend(undefined, { ...machine, tensorflow: defect })).rejects.toThrow(TypeError)
  })
})

const neverLoaded: Loader = async () => {
  throw new Error("was loaded although another backend was forced")
}

describe("maths", () => {
  it("are set for this process and its children, said where the backend is named, and fixed once the native one is loaded", async () => {
    const held = process.env.ONEDNN_DEFAULT_FPMATH_MODE
    try {
      delete process.env.ONEDNN_DEFAULT_FPMATH_MODE
      expect((await useBackend("cpu")).machine.precision).toBe("f32")
      expect((await useBackend("cpu")).reason).not.toMatch(/bf16/)
      expect((await useBackend("cpu", "bf16")).reason).toMatch(
        /bf16 maths asked for, but only the native backend has it/,
      )
      expect(process.env.ONEDNN_DEFAULT_FPMATH_MODE).toBe("BF16")
      expect((await useBackend("cpu")).machine.precision).toBe("bf16")
      expect((await useBackend("cpu", "f32")).machine.precision).toBe("f32")
      if (!nativeBuild()) return
      expect((await useBackend("tensorflow", "bf16")).reason).toMatch(/, bf16 maths/)
      await expect(useBackend("tensorflow", "f32")).rejects.toThrow(
        "math: must be bf16 as when the native backend was loaded, got f32; restart the process",
      )
    } finally {
      if (held === undefined) delete process.env.ONEDNN_DEFAULT_FPMATH_MODE
      else process.env.ONEDNN_DEFAULT_FPMATH_MODE = held
    }
  })
})
