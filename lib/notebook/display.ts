import { inspect } from "node:util"
import { variable } from "../environment"

/** What a front end may choose from, by mime type. `text/plain` is what remains when it knows none of the others. */
export interface Bundle {
  "text/plain": string
  "text/html"?: string
  "image/png"?: string
  [mime: string]: unknown
}

export type Mode = "live" | "publish"

/**
 * How things are shown: `live` for a notebook that somebody works in (figures answer to the pointer), `publish` for one
 * that is kept (pictures as PNG, no scripts, no progress). Set by MUSC_NOTEBOOK.
 */
export const mode = (): Mode => variable("MUSC_NOTEBOOK") ?? "live"

interface Content {
  data: Bundle
  metadata: Readonly<Record<string, unknown>>
  transient?: { display_id: string }
}
type Write = (content: Content, update: boolean) => void

/** tslab sends a whole bundle through this function alone; its public display knows one mime type at a time. */
function writer(): Write | undefined {
  const jupyterModule = Object.values(require.cache).find(
    (loaded) =>
      /[\\/]tslab[\\/]dist[\\/]jupyter\.js$/.test(loaded?.filename ?? "") && loaded?.exports.lastWriteDisplayData,
  )
  return jupyterModule?.exports.lastWriteDisplayData
}

let displays = 0

/** An output that can be changed later, also from other cells. */
export interface Slot {
  set(bundle: Bundle): void
}

/** Shows a bundle in the cell; outside of Jupyter prints its text. */
export function display(data: Bundle): Slot {
  const write = writer()
  if (!write) {
    console.log(data["text/plain"])
    return { set: ({ "text/plain": text }) => console.log(text) }
  }
  const transient = { display_id: `musc-${process.pid}-${++displays}` }
  write({ data, metadata: {}, transient }, false)
  return {
    set: (changed) => (writer() ?? write)({ data: changed, metadata: {}, transient }, true),
  }
}

/**
 * Waits until a display that is made in a cell that runs again can be changed later: VS Code empties such a cell a
 * little late, and what was shown before keeps its first state.
 */
export const settled = (): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, inNotebook() && mode() === "live" ? SETTLING : 0))

/** Milliseconds; on a busy machine 150 were too few in one run of two. */
export const SETTLING = 500

/** Whether anybody can see more than text. */
export const inNotebook = (): boolean => writer() !== undefined

/** A value as text, for everything that has no better view. */
export const plainText = (value: unknown): string =>
  typeof value === "string"
    ? value
    : inspect(value, { depth: 4, maxArrayLength: 20, maxStringLength: 2000, breakLength: 100 })
