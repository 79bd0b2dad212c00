/** Fields of protocol buffers, as in TensorFlow's graphs and TensorBoard's events: number and wire type, value. */

/** A number from 0. */
export const varintField = (field: number, value: number): Buffer => Buffer.concat([varint(field * 8), varint(value)])

/** Text, bytes or the parts of a message. */
export function bytesField(field: number, ...parts: readonly (string | Uint8Array)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part as string)))
  return Buffer.concat([varint(field * 8 + 2), varint(body.length), body])
}

export function doubleField(field: number, value: number): Buffer {
  const data = Buffer.alloc(8)
  data.writeDoubleLE(value)
  return Buffer.concat([varint(field * 8 + 1), data])
}

export function floatField(field: number, value: number): Buffer {
  const data = Buffer.alloc(4)
  data.writeFloatLE(value)
  return Buffer.concat([varint(field * 8 + 5), data])
}

function varint(value: number): Buffer {
  const out: number[] = []
  for (; value > 127; value = Math.floor(value / 128)) out.push((value % 128) + 128)
  return Buffer.from([...out, value])
}
