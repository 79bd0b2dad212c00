import { spawn } from "node:child_process"
import { once } from "node:events"
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { describe, expect, it } from "vitest"
import { fixture } from "../support/tensors"

const bin = join(__dirname, "../../lib/cli/bin.cjs")
const dir = mkdtempSync(join(tmpdir(), "musc-stop-"))
const loop = (depth: number): string =>
  depth ? `{% for i in [1,2,3,4,5,6,7,8,9,10] %}${loop(depth - 1)}{% endfor %}` : ""

/** A model folder of a stranger with one file changed. */
function folderWith(name: string, change: (folder: string) => void): string {
  const folder = join(dir, name)
  cpSync(fixture("llama"), folder, { recursive: true })
  change(folder)
  return folder
}

const folders = {
  "a template that never ends": folderWith("template", (folder) =>
    writeFileSync(join(folder, "chat_template.jinja"), loop(12)),
  ),
  "a tokenizer that never ends": folderWith("tokenizer", (folder) => {
    const file = join(folder, "tokenizer.json")
    const pattern = { Regex: "(a+)+$" }
    const split = { type: "Split", pattern, behavior: "Isolated", invert: false }
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), pre_tokenizer: split }))
  }),
}
writeFileSync(join(dir, "seeds.jsonl"), `${JSON.stringify({ instruction: `${"a".repeat(60)}!` })}\n`.repeat(500))

describe("a command with a model of a stranger", () => {
  const signals = ["SIGINT", "SIGTERM"] as const
  const rows = Object.entries(folders).flatMap(([what, folder]) => signals.map((signal) => ({ what, folder, signal })))
  // Tried again where the machine was busy with something else.
  it.each(rows)("ends within 2 seconds of $signal, or before: $what", { retry: 2 }, async ({ folder, signal }) => {
    const args = [bin, "decompose", "seeds.jsonl", "-o", `${signal}.jsonl`, "--model", folder]
    const child = spawn(process.execPath, args, { cwd: dir, stdio: ["ignore", "ignore", "pipe"] })
    let said = ""
    child.stderr.on("data", (data) => {
      said += data
    })
    const ended = once(child, "exit").then(([code, by]) => ({ code, by, at: performance.now() }))
    // The model is open once the backend has been named; the first prompt is made next.
    for (let i = 0; i < 600 && child.exitCode === null && !said.includes("backend:"); i++) await sleep(50)
    await sleep(700)
    const sent = performance.now()
    child.kill(signal)
    const { at, by } = await ended
    expect(at - sent).toBeLessThan(3000) // the rest for the end of the process
    expect(by === null || by === signal, said).toBe(true)
    expect(said).not.toMatch(/\n\s+at /)
  })
})
