import { readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { compileTemplate } from "../../lib/text/jinja/template"
import { outcomeOf, type Row } from "../reference/templates"

// What Transformers renders (tests/reference/templates.py), with jinja2 in its sandbox.
const file = join(__dirname, "../fixtures/chat/templates.json")
const { rows, context }: { rows: Row[]; context: Record<string, unknown> } = JSON.parse(readFileSync(file, "utf8"))

describe("chat templates", () => {
  it("are rendered as Transformers renders them, or refused by name", () => {
    const wrong = rows.map((row) => ({ row, outcome: outcomeOf(row, context) }))
    const allowed = ["same", "both refuse", "refused by name"]
    expect(wrong.filter(({ outcome }) => !allowed.includes(outcome[0]))).toEqual([])
  })

  it("of whole conversations are never refused where Transformers renders them", () => {
    const conversations = rows.filter(({ name, text }) => name && text !== undefined)
    expect(conversations.length).toBeGreaterThan(150)
    for (const row of conversations) expect(outcomeOf(row, context)).toEqual(["same", row.text])
  })

  it("keeps sigmas at the end of words, the limits of numbers, and blanks that are no tag's", () => {
    const render = (source: string) => compileTemplate(source)({})
    // What Python gives.
    expect(render("{{ 'ΟΔΟΣ İΣ aΣb'.title() }} {{ 'ΟΔΟΣ ας'.swapcase() }}")).toBe("Οδος İς Aσb οδος ΑΣ")
    expect(render("{{ ('9' * 4300)|int|string|length }} {{ ('9' * 4301)|int }}")).toBe("4300 0")
    expect(render("{{ '1.'|float }} {{ '12x'|float }} {{ '1_0.5e3'|float }}")).toBe("1.0 0.0 10500.0")
    expect(render("a \n b \n{%- if true %} c{% endif %}")).toBe("a \n b c")
  })
})
