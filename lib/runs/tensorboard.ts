import { appendFileSync, mkdirSync } from "node:fs"
import { join } from "node:path"
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

// Protocol buffers: a field is its number and wire type, then its value.
function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = BigInt(value)
  do {
    const low = Number(rest & 127n)
    rest >>= 7n
    bytes.push(rest ? low | 128 : low)
  } while (rest)
  return Buffer.from(bytes)
}
const tag = (field: number, wire: number) => varint((field << 3) | wire)
const integer = (field: number, value: number) => Buffer.concat([tag(field, 0), varint(value)])
const bytes = (field: number, data: Uint8Array) => Buffer.concat([tag(field, 2), varint(data.length), data])
const text = (field: number, value: string) => bytes(field, Buffer.from(value))
const message = (field: number, ...parts: readonly Uint8Array[]) => bytes(field, Buffer.concat(parts))
function double(field: number, value: number): Buffer {
  const data = Buffer.alloc(8)
  data.writeDoubleLE(value)
  return Buffer.concat([tag(field, 1), data])
}
function float(field: number, value: number): Buffer {
  const data = Buffer.alloc(4)
  data.writeFloatLE(value)
  return Buffer.concat([tag(field, 5), data])
}

export interface EventWriter {
  /** Adds scalars of one step. */
  scalars(step: number, values: Readonly<Record<string, number>>): void
  /** Adds a Markdown text, shown under Text. */
  text(name: string, markdown: string): void
}

let opened = 0

/** A new event file in a folder. Each call appends to it, so TensorBoard sees a training as it goes. */
export function eventWriter(dir: string, now: () => number = Date.now): EventWriter {
  mkdirSync(dir, { recursive: true })
  const unique = `${Math.floor(now() / 1000)}.${hostName()}.${process.pid}.${opened++}`
  const file = join(dir, `events.out.tfevents.${unique}`)
  const write = (...parts: readonly Uint8Array[]) =>
    appendFileSync(file, record(Buffer.concat([double(1, now() / 1000), ...parts])))
  write(text(3, "brain.Event:2"))
  return {
    scalars(step, values) {
      const summary = Object.entries(values).map(([name, value]) => message(1, text(1, name), float(2, value)))
      write(integer(2, step), message(5, ...summary))
    },
    text(name, markdown) {
      const metadata = message(9, message(1, text(1, "text")))
      const stringType = 7 // DT_STRING
      const tensor = message(8, integer(1, stringType), message(2, message(2, integer(1, 1))), text(8, markdown))
      write(integer(2, 0), message(5, message(1, text(1, name), metadata, tensor)))
    },
  }
}
