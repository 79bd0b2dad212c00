import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, it } from "vitest"
import { useBackend } from "../../lib/device/tf"
import { openLocal } from "../../lib/engine/local"
import { replyOf } from "../../lib/engine/reply"
import { fixture } from "../support/tensors"

const dir = mkdtempSync(join(tmpdir(), "musc-local-thoughts-"))
afterAll(() => rmSync(dir, { recursive: true }))

it("a reply to a prompt that opens the thoughts begins inside them, and has no answer where it is cut there", async () => {
  cpSync(fixture("llama"), dir, { recursive: true })
  const file = join(dir, "tokenizer_config.json")
  const settings = JSON.parse(readFileSync(file, "utf8"))
  const chat_template =
    "{% for m in messages %}{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<think>\n{% endif %}"
  writeFileSync(file, JSON.stringify({ ...settings, chat_template }))
  rmSync(join(dir, "chat_template.jinja"), { force: true })
  await useBackend()
  const engine = openLocal(dir).engine()
  const request = { messages: [{ role: "user" as const, content: "hello" }], temperature: 0, maxTokens: 5, seed: 1 }
  const raw = await engine.generate(request)
  expect(raw.text.startsWith("<think>\n")).toBe(true)
  expect(await replyOf(engine, request)).toMatchObject({ text: "", problem: "cut off inside its thoughts" })
  engine.dispose()
})
