import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, it } from "vitest"
import { writeComparison } from "../../lib/report/compare-report"
import { madeRun, writeMadeRun } from "../runs/made-run"

const root = mkdtempSync(join(tmpdir(), "musc-compare-report-"))
afterAll(() => rmSync(root, { recursive: true }))

it("two runs stand side by side, with paired differences of the methods that both have", async () => {
  const [a, b] = [join(root, "a"), join(root, "b")]
  // with fewer seeds no difference is clear: their spread counts
  const seeds = [0, 1, 2, 3, 4]
  writeMadeRun(a, { ...madeRun, seeds })
  writeMadeRun(b, { ...madeRun, seeds, methods: { base: 0, musc: 1 } })
  const text = readFileSync(await writeComparison(a, b), "utf8")
  const results = /<h2>Results<\/h2>[\s\S]*?<\/table>/.exec(text)![0]
  expect([...results.matchAll(/<tr><td class="">(?:<b>)?([\w-]+)/g)].map(([, method]) => method)).toEqual([
    ...["base", "musc"],
    ...["base", "musc"],
  ])
  // base answers alike in both runs, so its difference is exactly 0; musc keeps more in b.
  expect(results).toMatch(/base<\/td><td class="number">0<\/td>[\s\S]*?\+0\.0 <small>\(\+0\.0 to \+0\.0\)/)
  expect(results).toMatch(/<b>\+\d+\.\d <small>/)
  const shell = text.replace(/(<script[^>]*>)[\s\S]*?(<\/script>)/g, "$1$2")
  expect(shell).toContain("<h2>Training</h2>")
  expect(shell).not.toMatch(/\ssrc=|<link|https?:/)
})

it("the times say from where a training is timed, and what a dash stands for", async () => {
  const [a, b] = [join(root, "timed"), join(root, "reused")]
  for (const folder of [a, b]) writeMadeRun(folder, madeRun)
  const stages = { "seed-0/train/musc": { seconds: 1.5, unit: "steps", done: 8 } }
  writeFileSync(join(a, "manifest.json"), JSON.stringify({ stages }))
  const [time] = /<h2>Time<\/h2>[\s\S]*?<\/section>/.exec(readFileSync(await writeComparison(a, b), "utf8"))!
  expect(time).toMatch(/1\.5 s for 8 steps<\/td><td class="number">–</)
  expect(time).toMatch(/from the end of its first step\. A dash: the result was already/)
})
