import type { Command } from "commander"
import { InputError } from "../errors"
import { writeComparison } from "../report/compare-report"
import { writeReport } from "../report/report"
import { writeReportFigures } from "../report/report-figures"
import { readStudy } from "../report/study-record"
import { writeStudyReport } from "../report/study-report"
import { requireSound, verdictText, verify } from "../runs/verify"

interface Options {
  figures?: string
  out?: string
  verify?: boolean
}

export function register(program: Command): void {
  program
    .command("report")
    .description(
      "Write report.html into a run folder: results with intervals, what was done to the data, pairs, token weights, " +
        "training curves, answers won and lost. One file that needs no network.",
    )
    .argument("<run>", "folder of a run, finished or not, or of a study")
    .argument("[other]", "another run: write a page that compares both")
    .option("-o, --out <file>", "where the comparison goes (default: compared-with-<other>.html in the first folder)")
    .option("--figures <folder>", "write the figures as .svg and .png files too")
    .option("--verify", "write nothing: compare all files with their recorded hashes, and compute the results again")
    .addHelpText(
      "after",
      `
Example:
  musc report runs/smoke
  musc report runs/smoke --figures figures
  musc report runs/smoke --verify                 is the run what its manifest says? (a result folder of musc benchmark too)
  musc report runs/smoke runs/try                 both side by side: results, settings, rows, curves, times

A run that was stopped is reported as far as it went. Writing the report again does no harm.`,
    )
    .action(async (run: string, other: string | undefined, { figures, out, verify: check }: Options) => {
      if (check) {
        if (other || figures || out)
          throw new InputError("--verify writes nothing, got a second run, --figures or --out")
        const verdicts = await verify(run)
        for (const verdict of verdicts) console.log(verdictText(verdict))
        return requireSound(verdicts)
      }
      if (other) {
        if (figures) throw new InputError("--figures is for the report of one run, got two; leave it out")
        return console.log(await writeComparison(run, other, out))
      }
      if (out) throw new InputError("--out is for a comparison, got one run; name another one, or leave it out")
      const report = await (readStudy(run) ? writeStudyReport(run) : writeReport(run))
      console.log(report)
      if (figures) for (const file of await writeReportFigures(report, figures)) console.log(file)
    })
}
