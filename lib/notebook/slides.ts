import { mkdtempSync } from "node:fs"
import { mkdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { type Notebook, notebookFiles, readNotebook } from "./batch"
import { jupyter } from "./install"

/**
 * The notebook with its slides marked: each heading begins one, and a cell with an output of its own, or text, after
 * other output begins another below it. nbconvert puts a notebook without such marks on one slide.
 */
export function withSlides(book: Notebook): Notebook {
  let shown = false
  const cells = book.cells.map((cell) => {
    const text = [cell.source].flat().join("")
    const heading = cell.cell_type === "markdown" && /^#{1,2} /.test(text)
    const kind = heading ? "slide" : shown ? "subslide" : "-"
    const outputs = cell.outputs?.length ?? 0
    shown = outputs > 0 || (shown && kind === "-")
    return { ...cell, metadata: { ...cell.metadata, slideshow: { slide_type: kind } } }
  })
  return { ...book, cells }
}

/** Slides as wide as lines of code are, with their numbers; what is taller than the screen scrolls. */
const looks = [
  ...["--SlidesExporter.reveal_scroll=True", "--SlidesExporter.reveal_number=c/t"],
  ...["--SlidesExporter.reveal_width=1600", "--SlidesExporter.reveal_height=1000"],
]

/**
 * Writes the notebooks as slides, one file each, into `folder`. The pages load reveal.js and MathJax from the network.
 * @throws InputError without Jupyter and nbconvert
 */
export async function notebookSlides(folder: string): Promise<string[]> {
  const files = notebookFiles()
  const work = mkdtempSync(join(tmpdir(), "musc-slides-"))
  try {
    await mkdir(folder, { recursive: true })
    const marked = files.map((file) => join(work, basename(file)))
    for (const [i, file] of files.entries()) await writeFile(marked[i]!, JSON.stringify(withSlides(readNotebook(file))))
    await jupyter(["nbconvert", ...marked, "--to", "slides", "--output-dir", folder, ...looks])
    return files.map((file) => join(folder, `${basename(file, ".ipynb")}.slides.html`))
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
