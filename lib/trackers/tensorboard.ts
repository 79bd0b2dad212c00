import { appendFileSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { bytesField, doubleField, floatField, varintField } from "../data/protobuf"
import { hostName } from "../machine"

/**
 * TensorBoard's event files: records framed as TFRecord (length and data, each with a masked CRC-32C), each one an
 * `Event` of tensorflow/core/util/event.proto.
 */

const table = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1
  return c
})

/** CRC-32C (Castagnoli), which zlib does not have, masked as TFRecord wants it. */
export function maskedCrc(data: Uint8Array): number {
  let c = 0xffffffff
  for (const byte of data) c = table[(c ^ byte) & 255]! ^ (c >>> 8)
  const crc = (c ^ 0xffffffff) >>> 0
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}

/** One TFRecord. */
export function record(data: Uint8Array): Buffer {
  const head = Buffer.alloc(12)
  head.writeBigUInt64LE(BigInt(data.length))
  head.writeUInt32LE(maskedCrc(head.subarray(0, 8)), 8)
  const end = Buffer.alloc(4)
  end.writeUInt32LE(maskedCrc(data))
  return Buffer.concat([head, data, end])
}

export interface EventWriter {
  /** Adds scalars of one step. */
  scalars(step: number, values: Readonly<Record<string, number>>): void
  /** Adds a Markdown text, shown under Text. */
  text(name: string, markdown: string): void
}

let opened = 0

/** A new event file in a folder. Each call appends to it, so TensorBoard sees a training as it goes. */
export function eventWriter(dir: string): EventWriter {
  mkdirSync(dir, { recursive: true })
  const unique = `${Math.floor(Date.now() / 1000)}.${hostName()}.${process.pid}.${opened++}`
  const file = join(dir, `events.out.tfevents.${unique}`)
  const write = (...parts: readonly Uint8Array[]) =>
    appendFileSync(file, record(Buffer.concat([doubleField(1, Date.now() / 1000), ...parts])))
  write(bytesField(3, "brain.Event:2"))
  return {
    scalars(step, values) {
      const summary = Object.entries(values).map(([name, value]) =>
        bytesField(1, bytesField(1, name), floatField(2, value)),
      )
      write(varintField(2, step), bytesField(5, ...summary))
    },
    text(name, markdown) {
      const metadata = bytesField(9, bytesField(1, bytesField(1, "text")))
      const stringType = 7 // DT_STRING
      const tensor = bytesField(
        8,
        varintField(1, stringType),
        bytesField(2, bytesField(2, varintField(1, 1))),
        bytesField(8, markdown),
      )
      write(varintField(2, 0), bytesField(5, bytesField(1, bytesField(1, name), metadata, tensor)))
    },
  }
}
