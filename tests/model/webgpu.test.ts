import { execFile } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { beforeAll, describe, expect, it, type TestContext } from "vitest"
import { fixture } from "../support/tensors"
import type { WebgpuAnswer } from "../support/webgpu"

// Wherever Dawn finds a device: the machine's own GPU, else the software GPU that Chromium brings along. The latter
// computes .3 to .5 GFLOPS and compiles each kernel anew, so the fixtures are tiny and the answers short.

const families = ["llama", "llama3-rope", "gemma3", "qwen2", "qwen3", "mistral"]

/**
 * Chromium's Vulkan loader and software GPU, as the environment of a process: the loader is looked for at its start.
 */
function softwareGpu(): Record<string, string> | null {
  const places = ["/usr/lib/chromium", "/usr/lib/chromium-browser", "/usr/lib64/chromium-browser", "/opt/google/chrome"]
  const folder = places.find((place) => existsSync(join(place, "vk_swiftshader_icd.json")))
  if (!folder) return null
  const driver = join(folder, "vk_swiftshader_icd.json")
  return {
    LD_LIBRARY_PATH: [folder, process.env.LD_LIBRARY_PATH].filter(Boolean).join(":"),
    VK_DRIVER_FILES: driver,
    VK_ICD_FILENAMES: driver,
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? tmpdir(),
  }
}

async function ask(env: Record<string, string>): Promise<WebgpuAnswer> {
  const args = ["-r", "tsx/cjs", join(__dirname, "../support/webgpu.ts"), ...families]
  const { stdout } = await promisify(execFile)(process.execPath, args, { env: { ...process.env, ...env } })
  return JSON.parse(stdout.trimEnd().split("\n").at(-1)!)
}

describe("on webgpu", () => {
  const expected = JSON.parse(readFileSync(join(fixture("llama"), "expected.json"), "utf8"))
  let got: WebgpuAnswer
  beforeAll(async () => {
    got = await ask({})
    const software = softwareGpu()
    if (got.reason && software) got = await ask(software)
  }, 900_000)
  const need = ({ skip }: TestContext) => {
    if (got.reason) skip(got.reason)
  }

  for (const name of families) {
    it(`logits of ${name} differ from those of transformers by less than 1e-3`, (context) => {
      need(context)
      expect(got.logitGaps[name]).toBeLessThan(1e-3)
    })
  }

  it("a batch is answered as transformers answers its rows", (context) => {
    need(context)
    expect(got.answers).toEqual(expected.greedy.map(({ tokens }: { tokens: number[] }) => tokens.slice(0, 6)))
  })

  it("a step of token-weighted DPO has PyTorch's loss and gradient norm, and moves the adapter", (context) => {
    need(context)
    const { loss, gradient_norm } = expected.lora.token_weighted_dpo
    const [first, second] = got.steps
    expect(Math.abs(first!.loss - loss)).toBeLessThan(1e-3)
    expect(Math.abs(first!.gradNorm / gradient_norm - 1)).toBeLessThan(1e-3)
    expect(second!.loss).toBeLessThan(first!.loss)
    // Adam's first step is the learning rate, 1e-3, the second by the cosine half of it
    expect(got.moved).toBeGreaterThan(1e-3)
    expect(got.moved).toBeLessThan(2e-3)
  })

  it("nothing is left on the device", (context) => {
    need(context)
    expect(got.tensorsLeft).toBe(0)
  })
})
