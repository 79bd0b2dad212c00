/** Where a call stands in a file, in bytes. */
export interface Place {
  start: number
  bytes: number
}

/**
 * Places of calls by the first 16 hexadecimal digits of their key, in typed arrays: 27 to 53 bytes a call, and no limit
 * of 2^24 entries as a Map has. Two keys that begin alike share an entry, and the later one holds it, so a reader
 * compares the whole key.
 */
export class Places {
  private count = 0
  private keys = new Uint32Array(2 * 1024)
  private starts = new Float64Array(1024)
  private sizes = new Uint32Array(1024) // 0 for a slot that is free

  get size(): number {
    return this.count
  }

  get(key: string): Place | undefined {
    const slot = this.slotOf(...halves(key))
    const bytes = this.sizes[slot]!
    return bytes ? { start: this.starts[slot]!, bytes } : undefined
  }

  /** `bytes` from 1. */
  set(key: string, { start, bytes }: Place): void {
    if (4 * (this.count + 1) > 3 * this.sizes.length) this.grow()
    this.put(...halves(key), start, bytes)
  }

  private put(high: number, low: number, start: number, bytes: number) {
    const slot = this.slotOf(high, low)
    if (!this.sizes[slot]) this.count++
    this.keys[2 * slot] = high
    this.keys[2 * slot + 1] = low
    this.starts[slot] = start
    this.sizes[slot] = bytes
  }

  /** The slot of a key, or the free one where it would stand. */
  private slotOf(high: number, low: number): number {
    const mask = this.sizes.length - 1
    for (let slot = (high ^ low) & mask; ; slot = (slot + 1) & mask) {
      if (!this.sizes[slot] || (this.keys[2 * slot] === high && this.keys[2 * slot + 1] === low)) return slot
    }
  }

  private grow() {
    const { keys, starts, sizes } = this
    const slots = 2 * sizes.length
    this.keys = new Uint32Array(2 * slots)
    this.starts = new Float64Array(slots)
    this.sizes = new Uint32Array(slots)
    this.count = 0
    for (let i = 0; i < sizes.length; i++) {
      if (sizes[i]) this.put(keys[2 * i]!, keys[2 * i + 1]!, starts[i]!, sizes[i]!)
    }
  }
}

const halves = (key: string): [number, number] => [
  Number.parseInt(key.slice(0, 8), 16) >>> 0,
  Number.parseInt(key.slice(8, 16), 16) >>> 0,
]
