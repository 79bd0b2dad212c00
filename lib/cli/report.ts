import type { Command } from "commander"
import { writeReport } from "../report/report"
import { writeReportFigures } from "../report/report-figures"
import { readStudy } from "../report/study-record"
import { writeStudyReport } from "../report/study-report"

export function register(program: Command): void {
  program
    .command("report")
    .description(
      "Write report.html into a run folder: results with intervals, what was done to the data, pairs, token weights, " +
        "training curves, answers won and lost. One file that needs no network.",
    )
    .argument("<run>", "folder of a run, finished or not, or of a study")
    .option("--figures <folder>", "write the figures as .svg and .png files too")
    .addHelpText(
      "after",
      `
Example:
  musc report runs/smoke
  musc report runs/smoke --figures figures

A run that was stopped is reported as far as it went. Writing the report again does no harm.`,
    )
    .action(async (run: string, { figures }: { figures?: string }) => {
      const report = await (readStudy(run) ? writeStudyReport(run) : writeReport(run))
      console.log(report)
      if (figures) for (const file of await writeReportFigures(report, figures)) console.log(file)
    })
}
