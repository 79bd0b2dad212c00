import { closeSync, openSync, readSync, unlinkSync, writeSync } from "node:fs"
import type { Tensor1D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"

/** Where another process finds a shelf, as long as the one that made it has it open. */
export interface ShelfPlace {
  path: string
  length: number
}

/**
 * Slots for vectors of one length that processes hand each other, which takes less time than a message: a file in memory
 * that has no name, so that nothing is left of it when its processes have ended, however they end. Who reads a slot
 * must have been told by a message, and nobody may write to it before that is answered.
 */
export class Shelf {
  private constructor(
    private readonly fd: number,
    readonly place: ShelfPlace,
  ) {}

  /** Null where the system has no such files. */
  static make(length: number): Shelf | null {
    const name = `/dev/shm/musc-${process.pid}-${Math.random().toString(36).slice(2)}`
    try {
      const fd = openSync(name, "wx+", 0o600)
      unlinkSync(name)
      const path = `/proc/${process.pid}/fd/${fd}`
      closeSync(openSync(path, "r+"))
      return new Shelf(fd, { path, length })
    } catch {
      return null
    }
  }

  static open(place: ShelfPlace): Shelf {
    return new Shelf(openSync(place.path, "r+"), place)
  }

  /** Whether there was room for it. */
  async put(slot: number, vector: Tensor1D): Promise<boolean> {
    const { buffer, byteOffset, byteLength } = (await vector.data()) as Float32Array
    const bytes = Buffer.from(buffer, byteOffset, byteLength)
    try {
      return writeSync(this.fd, bytes, 0, byteLength, slot * byteLength) === byteLength
    } catch {
      return false
    }
  }

  /** The caller disposes it. @throws Error where nobody has put anything */
  take(slot: number): Tensor1D {
    const { length } = this.place
    const values = new Float32Array(length)
    const { buffer, byteLength } = values
    const read = readSync(this.fd, Buffer.from(buffer), 0, byteLength, slot * byteLength)
    if (read !== byteLength) throw new RangeError("shelf: slot must hold what is asked for, got less")
    return tf.tensor1d(values)
  }

  close(): void {
    closeSync(this.fd)
  }
}
