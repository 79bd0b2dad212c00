import { readFileSync } from "node:fs"
import { expect, it } from "vitest"
import { readJsonFile } from "../../lib/data/json-file"
import type { Results } from "./bench"

it("the README's speeds are those of the committed results", () => {
  const readme = readFileSync("README.md", "utf8")
  for (const name of ["world", "gemma-3-270m"]) {
    const { rows, commit } = readJsonFile(`data/results/bench-${name}.json`) as unknown as Results
    expect(readme).toContain(`commit ${commit} | musc | peer | ratio | memory |`)
    for (const { work, ours, peer, ratio, unit, peakMiB, peerPeakMiB } of rows.filter(({ unit }) => unit !== "%"))
      if (peer && ratio && !/against without|against f32/.test(work))
        expect(readme).toContain(
          `| ${work} | ${ours} ${unit} | ${peer} | ${ratio.toFixed(2)} | ${peakMiB} / ${peerPeakMiB} |`,
        )
  }
})
