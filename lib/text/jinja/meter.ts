import { BudgetError } from "./errors"

/**
 * What one rendering may cost, in steps: a node of the template, a comparison, or eight characters or list items that
 * are read or made. So the time is bounded as well: about a second for all of them.
 */
const maxSteps = 2_000_000

/**
 * Milliseconds after which a rendering ends in any case, for what is dearer than its steps say: by the clock, and of
 * processor time too, since a machine that was suspended says nothing about the template.
 */
const maxTime = 4000
/** Steps between two looks at the time. */
const look = maxSteps / 64

let left = Number.POSITIVE_INFINITY
let nextLook = 0
let began = { clock: 0, processor: process.cpuUsage() }

/** Charges the rendering that is under way. @throws BudgetError */
export function charge(steps: number): void {
  left -= Math.max(0, steps)
  // Not-a-number would never be below 0.
  if (!(left >= 0)) throw new BudgetError(`a template may take at most ${maxSteps} steps, this one takes more`)
  if (left < nextLook) {
    nextLook = left - look
    const { user, system } = process.cpuUsage(began.processor)
    if (performance.now() - began.clock > maxTime && (user + system) / 1000 > maxTime)
      throw new BudgetError(`a template may take at most ${maxTime / 1000} s, this one takes more`)
  }
}

/** Charges the reading or making of characters or list items. */
export const chargeItems = (count: number): void => charge(count / 8)

/** Runs one rendering on a fresh budget. */
export function metered<T>(work: () => T): T {
  const outer = { left, nextLook, began }
  left = maxSteps
  nextLook = left - look
  began = { clock: performance.now(), processor: process.cpuUsage() }
  try {
    return work()
  } finally {
    ;({ left, nextLook, began } = outer)
  }
}
