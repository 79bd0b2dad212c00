import { BudgetError } from "./errors"

/**
 * What one rendering may cost, in steps: a node of the template, a comparison, or eight characters or list items that
 * are read or made. So the time is bounded as well: about a second for all of them.
 */
export const maxSteps = 2_000_000

let left = Number.POSITIVE_INFINITY

/** Charges the rendering that is under way. @throws BudgetError */
export function charge(steps: number): void {
  left -= Math.max(0, steps)
  // Not-a-number would never be below 0.
  if (!(left >= 0)) throw new BudgetError(`a template may take at most ${maxSteps} steps, this one takes more`)
}

/** Charges the reading or making of characters or list items. */
export const chargeItems = (count: number): void => charge(count / 8)

/** Runs one rendering on a fresh budget. */
export function metered<T>(work: () => T): T {
  const outer = left
  left = maxSteps
  try {
    return work()
  } finally {
    left = outer
  }
}
