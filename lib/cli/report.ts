import type { Command } from "commander"
import { writeReport } from "../runs/report"
import { readStudy } from "../runs/study-record"
import { writeStudyReport } from "../runs/study-report"

export function register(program: Command): void {
  program
    .command("report")
    .description(
      "Write report.html into a run folder: results with intervals, what was done to the data, pairs, token weights, " +
        "training curves, answers won and lost. One file that needs no network.",
    )
    .argument("<run>", "folder of a run, finished or not, or of a study")
    .addHelpText(
      "after",
      `
Example:
  musc report runs/smoke

A run that was stopped is reported as far as it went. Writing the report again does no harm.`,
    )
    .action(async (run: string) => {
      console.log(await (readStudy(run) ? writeStudyReport(run) : writeReport(run)))
    })
}
