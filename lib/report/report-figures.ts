import { mkdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileError } from "../data/files"
import { figuresIn } from "../plots/html"
import { saveFigure } from "../plots/picture"

/** What a figure's file is called: its place in the report and its title. */
const nameOf = (title: string, i: number) =>
  `${String(i + 1).padStart(2, "0")}-${title
    .replace(/<[^>]*>/g, " ")
    .toLowerCase()
    .replace(/[^a-z0-9.]+/g, "-")
    .slice(0, 60)
    .replace(/^-+|-+$/g, "")}`

/**
 * Writes every figure of a report as SVG and as PNG into a folder, and returns the files.
 * @throws InputError for a report that cannot be read, a folder that cannot be written, missing optional packages
 */
export async function writeReportFigures(report: string, folder: string): Promise<string[]> {
  const page = await readFile(report, "utf8").catch((error) => {
    throw fileError(error, report, "read")
  })
  await mkdir(folder, { recursive: true }).catch((error) => {
    throw fileError(error, folder, "write")
  })
  const files: string[] = []
  for (const [i, figure] of figuresIn(page).entries()) {
    const { text = "figure" } = (figure.layout.title ?? {}) as { text?: string }
    for (const ending of ["svg", "png"]) {
      files.push(join(folder, `${nameOf(text, i)}.${ending}`))
      await saveFigure(figure, files.at(-1)!)
    }
  }
  return files
}
