import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { deserialize, serialize } from "node:v8"
import { isWindows } from "../machine"
import { fileError } from "./files"

/**
 * A list in a temporary file: written once, read by place, as many items as the disk holds. Memory holds 8 bytes an
 * item. The caller disposes it.
 */
export class Spool<Item> {
  private readonly dir = mkdtempSync(join(tmpdir(), "musc-spool-"))
  private readonly file = openSync(join(this.dir, "items"), "w+")
  private readonly ends = [0]

  constructor() {
    // Nothing is left behind by a program that is killed; Windows keeps a file that is open.
    if (!isWindows) rmSync(this.dir, { recursive: true })
  }

  get length(): number {
    return this.ends.length - 1
  }

  /** @throws InputError when the disk is full */
  push(item: Item): void {
    const bytes = serialize(item)
    const start = this.ends[this.length]!
    try {
      for (let done = 0; done < bytes.length; )
        done += writeSync(this.file, bytes, done, bytes.length - done, start + done)
    } catch (error) {
      throw fileError(error, this.dir, "write")
    }
    this.ends.push(start + bytes.length)
  }

  at(index: number): Item | undefined {
    if (index < 0 || index >= this.length) return undefined
    const start = this.ends[index]!
    const bytes = Buffer.alloc(this.ends[index + 1]! - start)
    for (let done = 0; done < bytes.length; )
      done += readSync(this.file, bytes, done, bytes.length - done, start + done)
    return deserialize(bytes)
  }

  dispose(): void {
    closeSync(this.file)
    rmSync(this.dir, { recursive: true, force: true })
  }
}
