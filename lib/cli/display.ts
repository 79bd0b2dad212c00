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
  const news = new News(stream)
  return {
    progress: (progress) => news.progress(progress),
    tokens: (count) => news.tokens(count),
    note: (line) => news.note(line),
    end: () => news.end(),
  }
}

/** What is shown of the stage under way. */
class News {
  private last: Progress | undefined
  private bar: SingleBar | undefined
  private began = 0
  /** the work that was done when it began */
  private start = 0
  private count = 0
  /** when anything was last heard of: what comes between stages is not part of them */
  private heard = 0
  private lastLine = 0
  /** the work done that was last written as a line */
  private written: number | undefined

  constructor(private readonly stream: NodeJS.WriteStream) {}

  progress(progress: Progress): void {
    const now = Date.now()
    if (progress.stage !== this.last?.stage) this.open(progress, now)
    this.heard = now
    this.last = progress
    this.refresh()
  }

  tokens(count: number): void {
    this.heard = Date.now()
    this.count += count
    this.refresh()
  }

  note(text: string): void {
    this.end()
    this.stream.write(`${highlighted(text, this.stream)}\n`)
  }

  end(): void {
    if (this.bar) this.bar.stop()
    else if (this.last && !this.stream.isTTY && this.last.done !== this.written) this.line(this.last)
    this.bar = undefined
    this.last = undefined
  }

  private open(progress: Progress, now: number): void {
    this.end()
    this.began = this.lastLine = now
    this.start = progress.done
    this.written = undefined
    this.count = 0
    if (!this.stream.isTTY) return
    const format = "{stage} {bar} {value}/{total} {facts}"
    this.bar = new SingleBar({ format, barsize: 24, hideCursor: true, stream: this.stream })
    this.bar.start(progress.total, progress.done, { stage: progress.stage.padEnd(28), facts: "" })
  }

  private facts(progress: Progress): string {
    const seconds = (this.heard - this.began) / 1000
    return paceOf(progress, { seconds, start: this.start, tokens: this.count })
  }

  private line(progress: Progress): void {
    this.lastLine = Date.now()
    this.written = progress.done
    const count = `${progress.stage}: ${progress.done} of ${progress.total} ${progress.unit}`
    this.stream.write(`${[count, this.facts(progress)].filter(Boolean).join(", ")}\n`)
  }

  private refresh(): void {
    if (!this.last) return
    if (this.bar) this.bar.update(this.last.done, { facts: this.facts(this.last) })
    else if (Date.now() - this.lastLine > PAUSE * 1000) this.line(this.last)
  }
}
