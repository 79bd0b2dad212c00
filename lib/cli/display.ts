import { styleText } from "node:util"
import { SingleBar } from "cli-progress"
import { variable } from "../environment"
import type { Progress } from "../runs/context"
import { paceOf } from "../runs/pace"

/** Seconds between lines where output goes to a file. */
const PAUSE = 5

/** A line of news as the terminal shows it: warnings in bold, where colours are wanted. */
export const highlighted = (line: string, stream: NodeJS.WriteStream = process.stderr): string =>
  line.startsWith("WARNING") && stream.isTTY && !variable("NO_COLOR") ? styleText(["bold", "yellow"], line) : line

/** Progress on standard error: a bar on a terminal, otherwise a line now and then. */
export interface Display {
  progress(progress: Progress): void
  tokens(count: number): void
  note(line: string): void
  end(): void
}

export function display(stream: NodeJS.WriteStream = process.stderr): Display {
  const terminal = stream.isTTY
  let stage = ""
  let began = 0
  let start = 0
  let lastLine = 0
  /** when anything was last heard of: what comes between stages is not part of them */
  let heard = 0
  let tokens = 0
  let bar: SingleBar | undefined
  let last: Progress | undefined
  /** the work done that was last written as a line */
  let written: number | undefined

  const seconds = () => (heard - began) / 1000
  const facts = (progress: Progress) => paceOf(progress, { seconds: seconds(), start, tokens })
  const line = (progress: Progress) => {
    lastLine = Date.now()
    written = progress.done
    const count = `${progress.stage}: ${progress.done} of ${progress.total} ${progress.unit}`
    stream.write(`${[count, facts(progress)].filter(Boolean).join(", ")}\n`)
  }
  const close = () => {
    if (bar) bar.stop()
    else if (last && !terminal && last.done !== written) line(last)
    bar = undefined
    last = undefined
    stage = ""
  }
  const refresh = () => {
    if (!last) return
    if (bar) bar.update(last.done, { facts: facts(last) })
    else if (Date.now() - lastLine > PAUSE * 1000) line(last)
  }
  return {
    progress(progress) {
      const now = Date.now()
      if (progress.stage !== stage) {
        close()
        stage = progress.stage
        began = lastLine = now
        start = progress.done
        written = undefined
        tokens = 0
        if (terminal) {
          bar = new SingleBar({
            format: "{stage} {bar} {value}/{total} {facts}",
            barsize: 24,
            hideCursor: true,
            stream,
          })
          bar.start(progress.total, progress.done, { stage: stage.padEnd(28), facts: "" })
        }
      }
      heard = now
      last = progress
      refresh()
    },
    tokens(count) {
      heard = Date.now()
      tokens += count
      refresh()
    },
    note(text) {
      close()
      stream.write(`${highlighted(text, stream)}\n`)
    },
    end: close,
  }
}
