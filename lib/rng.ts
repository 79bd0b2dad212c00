/**
 * Seeded named random streams. A stream is addressed by what it is for (run seed, stage, row, sample), never by when it
 * is used, so order, batch size and parallelism change nothing.
 */
export interface Rng {
  /** Uniform in [0, 1). */
  next(): number
  /** Uniform integer in [0, n). */
  int(n: number): number
  /** One element. */
  pick<T>(items: readonly T[]): T
  /** A new array in random order (Fisher-Yates). */
  shuffle<T>(items: readonly T[]): T[]
  /** `k` distinct elements in random order. */
  sample<T>(items: readonly T[], k: number): T[]
}

/** 32-bit key of a stream: FNV-1a over the parts, then a finaliser (murmur3) so that near keys give far streams. */
export function streamKey(...parts: readonly (string | number)[]): number {
  let h = 0x811c9dc5
  for (const part of parts) {
    for (const ch of `${part}\u0000`) h = Math.imul(h ^ ch.codePointAt(0)!, 0x01000193)
  }
  return mix(h)
}

/** The `i`-th uniform number in [0, 1) of the stream `key`: counter-based, so it needs no state. */
export function uniformAt(key: number, i: number): number {
  return mix(key + Math.imul(i + 1, 0x9e3779b9)) / 2 ** 32
}

/** A sequential stream, e.g. `rng(seed, "corrupt", row.id)`. */
export function rng(...parts: readonly (string | number)[]): Rng {
  const key = streamKey(...parts)
  let i = 0
  const next = () => uniformAt(key, i++)
  const int = (n: number) => Math.floor(next() * n)
  const shuffle = <T>(items: readonly T[]): T[] => {
    const out = [...items]
    for (let a = out.length - 1; a > 0; a--) {
      const b = int(a + 1)
      ;[out[a], out[b]] = [out[b]!, out[a]!]
    }
    return out
  }
  return {
    next,
    int,
    pick: (items) => items[int(items.length)]!,
    shuffle,
    sample: (items, k) => shuffle(items).slice(0, k),
  }
}

function mix(x: number): number {
  let h = x >>> 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
