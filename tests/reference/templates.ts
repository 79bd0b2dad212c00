/**
 * Our chat templates beside those of Transformers: `templates.py` writes the rows, this prints how many agree.
 *
 *     npx tsx tests/reference/templates.ts [FILE]
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { UnsupportedError } from "../../lib/text/jinja/errors"
import { compileTemplate } from "../../lib/text/jinja/template"

export interface Row {
  name?: string
  template: string
  /** null for the shared ones */
  variables: Record<string, unknown> | null
  text?: string
  /** kind of the error that Python raised instead of a text */
  error?: string
}

export type Outcome = "same" | "both refuse" | "refused by name" | "refused" | "differs" | "rendered, reference refuses"

/** How our renderer does on a row. */
export function outcomeOf({ template, variables, text }: Row, context: Record<string, unknown>): [Outcome, string] {
  let ours: string
  try {
    ours = compileTemplate(template)(variables ?? context)
  } catch (error) {
    if (text === undefined) return ["both refuse", `${error}`]
    return [error instanceof UnsupportedError ? "refused by name" : "refused", `${error}`]
  }
  if (text === undefined) return ["rendered, reference refuses", ours]
  return [ours === text ? "same" : "differs", ours]
}

if (require.main === module) {
  const file = process.argv[2] ?? join(__dirname, "../fixtures/chat/templates.json")
  const { rows, context }: { rows: Row[]; context: Record<string, unknown> } = JSON.parse(readFileSync(file, "utf8"))
  const counts = new Map<Outcome, number>()
  const start = performance.now()
  for (const row of rows) {
    const [outcome, ours] = outcomeOf(row, context)
    counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
    if (outcome === "same" || outcome === "both refuse") continue
    console.log(`${outcome}: ${row.name ?? row.template}\n  theirs ${JSON.stringify(row.text ?? row.error)}`)
    console.log(`  ours   ${JSON.stringify(ours)}`)
  }
  console.log(rows.length, "rows in", Math.round(performance.now() - start), "ms", Object.fromEntries(counts))
}
