import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { MuscError } from "../../../lib/errors"
import { writeReport } from "../../../lib/report/report"
import { Count, type Tally } from "./table"

const hostile = [
  '<img src=x onerror="alert(1)">',
  '</script><script>alert("attack")</script>',
  '"><svg onload=alert(1)>',
  "javascript:alert(1)//",
  "' onmouseover='alert(1)",
  "<!--<script>",
  "]]><![CDATA[",
  "{{constructor.constructor('alert(1)')()}}",
  "\u202e\u0000\u001b[31m\ud800",
  '=HYPERLINK("http://x")',
]

/** What would run, or break out of its place, if it stood in a page as it is. */
const quote = /' onmouseover='/
const raw = [/<img src=x/i, /<script>alert/i, /<svg onload/i, quote, /<!--<script>/]

/** Puts hostile texts into each text field of each file of a run, and looks for them in the report. */
export async function hostileTexts(root: string, run: string, seconds: number): Promise<Tally> {
  const end = Date.now() + 1000 * seconds
  const count = new Count("hostile texts in a run's files")
  const files = readdirSync(run, { recursive: true, encoding: "utf8" }).filter(
    (file) => /\.(jsonl|json)$/.test(file) && !/key\.json$|adapter/.test(file),
  )
  for (const file of files) {
    const lines = readFileSync(join(run, file), "utf8").split("\n")
    const records = file.endsWith(".jsonl")
      ? lines.filter(Boolean).map((line) => JSON.parse(line))
      : [JSON.parse(lines.join("\n"))]
    const fields = [...new Set(records.flatMap((record) => pathsOf(record)))]
    for (const [i, field] of fields.slice(0, 60).entries()) {
      if (Date.now() > end) break
      const text = hostile[i % hostile.length]!
      const dir = join(root, "hostile")
      rmSync(dir, { recursive: true, force: true })
      cpSync(run, dir, { recursive: true })
      const changed = records.map((record) => JSON.stringify(withText(record, field, text)))
      writeFileSync(
        join(dir, file),
        file.endsWith(".jsonl") ? changed.map((line) => `${line}\n`).join("") : changed[0]!,
      )
      let problem: string | undefined
      try {
        const page = readFileSync(await writeReport(dir), "utf8")
        // In the data of figures, which is JSON in a script element, a quotation mark ends nothing.
        const outside = page.replace(/<script type="application\/json"[^>]*>[^<]*<\/script>/g, "")
        const found = raw.find((one) => one.test(one === quote ? outside : page))
        if (found) problem = `${file}, ${field}: ${found} stands in the report`
      } catch (error) {
        if (!(error instanceof MuscError)) problem = `${file}, ${field}: ${(error as Error).stack?.slice(0, 300)}`
      }
      count.add(problem)
    }
  }
  count.note = `${files.length} files`
  return count
}

/** Paths of the texts in a record; entries of lists count as one. */
function pathsOf(value: unknown, path = ""): string[] {
  if (typeof value === "string") return [path]
  if (Array.isArray(value)) return value.slice(0, 3).flatMap((entry) => pathsOf(entry, `${path}[]`))
  if (typeof value !== "object" || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => pathsOf(inner, `${path}.${key}`))
}

function withText(value: unknown, path: string, text: string): unknown {
  if (path === "") return typeof value === "string" ? text : value
  if (path.startsWith("[]"))
    return Array.isArray(value) ? value.map((entry) => withText(entry, path.slice(2), text)) : value
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => {
      const rest = path.startsWith(`.${key}`) ? path.slice(key.length + 1) : undefined
      return [key, rest !== undefined && (rest === "" || /^[.[]/.test(rest)) ? withText(inner, rest, text) : inner]
    }),
  )
}
