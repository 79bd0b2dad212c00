import { fork } from "node:child_process"
import { once } from "node:events"
import { describe, expect, it } from "vitest"
import { backends } from "../support/tensors"

describe.runIf(backends[0] === "tensorflow")("native operations", () => {
  it("survive signals that arrive while they compute", async () => {
    const child = fork("tests/support/writer.ts", ["12"], { execArgv: ["--require", "tsx/cjs"] })
    let signals = 0
    child.once("message", () => {
      const timer = setInterval(() => child.kill("SIGUSR2") && signals++, 1)
      child.once("disconnect", () => clearInterval(timer))
    })
    const [code, killed] = await once(child, "exit")
    expect({ code, killed }).toEqual({ code: 0, killed: null })
    expect(signals).toBeGreaterThan(100)
  }, 60_000)
})
