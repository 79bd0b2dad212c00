import { MuscError } from "../errors"

/** How one token is drawn from logits. */
export interface TokenSampling {
  /** 0 is greedy */
  temperature: number
  /** smallest set of tokens whose probability reaches this; 1 keeps all */
  topP?: number
  /** this many most likely tokens; 0 keeps all */
  topK?: number
}

/** Whether the likeliest token is taken, without chance. */
export const isGreedy = ({ temperature, topK = 0 }: TokenSampling): boolean => temperature <= 0 || topK === 1

/** @throws MuscError where the largest logit is none */
export function assertNumber(largest: number): void {
  if (Number.isFinite(largest)) return
  throw new MuscError(
    `generation: logits must be numbers, got ${largest}; the weights have diverged, train with a lower lr`,
  )
}

/** Logits this far (in units of temperature) below the best have probability < 1e-9 and are left out. */
const negligible = 21

/**
 * Draws one token id. `u` uniform in [0, 1). Temperature, then top-k, then top-p, as transformers orders its warpers.
 * @param logits [V], or a view of a row of a batch
 * @throws MuscError where they are not numbers
 */
export function drawToken(logits: Float32Array, { temperature, topP = 1, topK = 0 }: TokenSampling, u: number): number {
  let best = 0
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i
  assertNumber(logits[best]!)
  if (isGreedy({ temperature, topK })) return best
  const floor = logits[best]! - negligible * temperature
  let ids = likely(logits, floor)
  const odds = (id: number) => Math.exp((logits[id]! - logits[best]!) / temperature)
  if ((topK > 0 && topK < ids.length) || topP < 1) {
    ids.sort((a, b) => logits[b]! - logits[a]! || a - b)
    if (topK > 0) ids = ids.subarray(0, topK)
    if (topP < 1) {
      const total = ids.reduce((sum, id) => sum + odds(id), 0)
      let sum = 0
      const last = ids.findIndex((id) => {
        sum += odds(id)
        return sum >= topP * total
      })
      if (last >= 0) ids = ids.subarray(0, last + 1)
    }
  }
  // Loops, as a method of a typed array calls a function for each of what may be 260,000 tokens.
  const weights = new Float64Array(ids.length)
  let total = 0
  for (let i = 0; i < ids.length; i++) {
    weights[i] = odds(ids[i]!)
    total += weights[i]!
  }
  let left = u * total
  for (let i = 0; i < ids.length; i++) {
    left -= weights[i]!
    if (left < 0) return ids[i]!
  }
  return ids[ids.length - 1]!
}

/** Ids whose logits reach `floor`. */
function likely(logits: Float32Array, floor: number): Int32Array {
  const ids = new Int32Array(logits.length)
  let n = 0
  for (let i = 0; i < logits.length; i++) if (logits[i]! >= floor) ids[n++] = i
  return ids.subarray(0, n)
}
