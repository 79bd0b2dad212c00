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

/** A line with the day and the commit that it was tried at. */
export interface Tried extends Tally {
  date: string
  commit: string
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

/** The table; with the commits, where the lines know them. */
export function tableOf(rows: readonly (Tally | Tried)[]): string {
  const line = (cells: readonly unknown[]) => `| ${cells.join(" | ")} |\n`
  const head = ["attack", "tried", "survived", "lost", "note"]
  const dated = rows.some((row) => "commit" in row)
  const origin = (row: Tally | Tried) => (dated ? ["commit" in row ? `${row.commit}, ${row.date}` : ""] : [])
  const total = (key: "tried" | "survived") => rows.reduce((sum, row) => sum + row[key], 0)
  const lost = rows.reduce((sum, row) => sum + row.lost.length, 0)
  return [
    line([...head, ...(dated ? ["commit, day"] : [])]),
    line(["---", "---:", "---:", "---:", "---", ...(dated ? ["---"] : [])]),
    ...rows.map((row) => line([row.what, row.tried, row.survived, row.lost.length, row.note ?? "", ...origin(row)])),
    line(["**all**", total("tried"), total("survived"), lost, "", ...(dated ? [""] : [])]),
  ].join("")
}
