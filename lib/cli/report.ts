import type { Command } from "commander"
import { InputError } from "../errors"
import { writeComparison } from "../report/compare-report"
import { writeReport } from "../report/report"
import { writeReportFigures } from "../report/report-figures"
import { readStudy } from "../report/study-record"
import { writeStudyReport } from "../report/study-report"
import { changedFiles, requireSound, verdictText, verify } from "../runs/verify"

interface Options {
  figures?: string
  out?: string
  verify?: boolean
}

/** Says on stderr where a run is not what its manifest says. */
async function noteChanges(run: string): Promise<void> {
  const [first, ...more] = await changedFiles(run)
  if (!first) return
  const rest = more.length ? ` and ${more.length} more` : ""
  console.error(`note: ${run} is not as it was recorded: ${first}${rest}; see --verify`)
}

export function register(program: Command): void {
  program
    .command("report")
    .description(
      "Write report.html into a run folder: results with intervals, data, pairs, token weights, " +
        "training curves, samples, times. One file that works offline.",
    )
    .argument("<run>", "folder of a run (finished or not) or of a study")
    .argument("[other]", "another run to compare with")
    .option("-o, --out <file>", "file of the comparison (default: compared-with-<other>.html in the first folder)")
    .option("--figures <folder>", "also write the figures as .svg and .png files")
    .option("--verify", "check only: compare all files with their recorded hashes and recompute the results")
    .addHelpText(
      "after",
      `
Example:
  musc report runs/smoke
  musc report runs/smoke --figures figures
  musc report runs/smoke --verify                 check a run, or a result folder of musc benchmark
  musc report runs/smoke runs/try                 compare results, settings, rows, curves and times

The report of a stopped run covers what is finished. It can be written again at any time.`,
    )
    .action(async (run: string, other: string | undefined, { figures, out, verify: check }: Options) => {
      if (check) {
        if (other || figures || out)
          throw new InputError("--verify writes nothing, got a second run, --figures or --out")
        const verdicts = await verify(run)
        for (const verdict of verdicts) console.log(verdictText(verdict))
        return requireSound(verdicts)
      }
      const runs = other === undefined ? [run] : [run, other]
      for (const one of runs) await noteChanges(one)
      if (other) {
        if (figures) throw new InputError("--figures works on one run, got two; leave it out")
        return console.log(await writeComparison(run, other, out))
      }
      if (out) throw new InputError("--out is for comparisons, got one run; add a second run, or leave it out")
      const report = await (readStudy(run) ? writeStudyReport(run) : writeReport(run))
      console.log(report)
      if (figures) for (const file of await writeReportFigures(report, figures)) console.log(file)
    })
}
