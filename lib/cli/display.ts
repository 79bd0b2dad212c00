import { SingleBar } from "cli-progress"
import type { Progress } from "../runs/workshop"

/** Seconds between lines where output goes to a file. */
const PAUSE = 5

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
  let told = 0
  let made = 0
  let bar: SingleBar | undefined
  let last: Progress | undefined

  const seconds = () => (Date.now() - began) / 1000
  const facts = ({ unit, done, total, note }: Progress) => {
    const rate = (done - start) / Math.max(0.001, seconds())
    const left = rate > 0 && total > done ? `${duration((total - done) / rate)} left` : ""
    const speed = rate > 0 ? `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} ${unit}/s` : ""
    const tokens = made ? `${Math.round(made / Math.max(0.001, seconds()))} tokens/s` : ""
    return [speed, tokens, note, left].filter(Boolean).join(", ")
  }
  const line = (progress: Progress) => {
    told = Date.now()
    stream.write(`${progress.stage}: ${progress.done} of ${progress.total} ${progress.unit}, ${facts(progress)}\n`)
  }
  const close = () => {
    if (bar) bar.stop()
    else if (last && !terminal) line(last)
    bar = undefined
    last = undefined
    stage = ""
  }
  const refresh = () => {
    if (!last) return
    if (bar) bar.update(last.done, { facts: facts(last) })
    else if (Date.now() - told > PAUSE * 1000) line(last)
  }
  return {
    progress(progress) {
      if (progress.stage !== stage) {
        close()
        stage = progress.stage
        began = told = Date.now()
        start = progress.done
        made = 0
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
      last = progress
      refresh()
    },
    tokens(count) {
      made += count
      refresh()
    },
    note(text) {
      close()
      stream.write(`${text}\n`)
    },
    end: close,
  }
}

/** `75 s`, `12 min`, `3.5 h` */
function duration(seconds: number): string {
  if (seconds < 100) return `${Math.round(seconds)} s`
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`
}
