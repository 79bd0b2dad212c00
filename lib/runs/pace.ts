/** Work done; `unit` says what is counted, `note` what else there is to say. */
interface Done {
  unit: string
  done: number
  total: number
  note?: string
}

/** How fast work goes and how long it will take: `12 rows/s, 350 tokens/s, loss 0.412, 40 s left`. */
export function paceOf(
  { unit, done, total, note }: Done,
  { seconds, start = 0, tokens = 0 }: { seconds: number; start?: number; tokens?: number },
): string {
  const time = Math.max(0.001, seconds)
  const rate = seconds < 0.1 ? 0 : (done - start) / time // what is done at once has no rate
  const left = rate > 0 && total > done ? `${duration((total - done) / rate)} left` : ""
  if (unit === "seconds") return note ?? "" // waiting: the total is the most that it may take
  const speed = rate > 0 ? `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} ${unit}/s` : ""
  const written = tokens ? `${Math.round(tokens / time)} tokens/s` : ""
  return [speed, written, note, left].filter(Boolean).join(", ")
}

/** `75 s`, `12 min`, `3.5 h` */
function duration(seconds: number): string {
  if (seconds < 100) return `${Math.round(seconds)} s`
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`
}
