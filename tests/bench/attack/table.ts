/** One line of the table: how often something was tried, how often nothing went wrong, and what did. */
export interface Tally {
  what: string
  tried: number
  survived: number
  /** What was lost or wrongly accepted, a line each. */
  lost: string[]
  /** Largest figures seen, what was left out and why. */
  note?: string
}

export class Count implements Tally {
  tried = 0
  survived = 0
  readonly lost: string[] = []
  note?: string

  constructor(readonly what: string) {}

  /** Counts one attempt; `problem` says what went wrong. */
  add(problem?: string): void {
    this.tried++
    if (problem === undefined) this.survived++
    else if (this.lost.push(problem) <= 5) console.error(`  ${this.what}: ${problem}`)
  }
}

export function tableOf(rows: readonly Tally[]): string {
  const line = (cells: readonly unknown[]) => `| ${cells.join(" | ")} |\n`
  const head = ["attack", "tried", "survived", "lost", "note"]
  const total = (key: "tried" | "survived") => rows.reduce((sum, row) => sum + row[key], 0)
  const lost = rows.reduce((sum, row) => sum + row.lost.length, 0)
  return [
    line(head),
    line(["---", "---:", "---:", "---:", "---"]),
    ...rows.map(({ what, tried, survived, lost, note = "" }) => line([what, tried, survived, lost.length, note])),
    line(["**all**", total("tried"), total("survived"), lost, ""]),
  ].join("")
}
