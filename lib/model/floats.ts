import { MuscError } from "../errors"
import { isLittleEndian } from "../machine"

/** Float formats of checkpoint files. */
export type FloatDtype = "F32" | "F16" | "BF16"
export const floatBytes: Record<FloatDtype, number> = { F32: 4, F16: 2, BF16: 2 }

/** Little-endian bytes to f32. F32 shares the buffer where alignment allows; the others are widened exactly. */
export function fromBytes(bytes: Uint8Array, dtype: FloatDtype): Float32Array {
  const { buffer, byteOffset, length } = littleEndian(bytes)
  if (dtype === "F32") {
    return byteOffset % 4
      ? new Float32Array(buffer.slice(byteOffset, byteOffset + length))
      : new Float32Array(buffer, byteOffset, length / 4)
  }
  const halves =
    byteOffset % 2
      ? new Uint16Array(buffer.slice(byteOffset, byteOffset + length))
      : new Uint16Array(buffer, byteOffset, length / 2)
  const out = new Float32Array(halves.length)
  const words = new Uint32Array(out.buffer)
  if (dtype === "BF16") for (let i = 0; i < halves.length; i++) words[i] = halves[i]! << 16
  else {
    const table = halfTable()
    for (let i = 0; i < halves.length; i++) words[i] = table[halves[i]!]!
  }
  return out
}

/** f32 to little-endian bytes, rounded to nearest, ties to even; F32 shares the buffer. */
export function toBytes(data: Float32Array, dtype: FloatDtype): Uint8Array {
  littleEndian(new Uint8Array(0))
  if (dtype === "F32") return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  const words = new Uint32Array(data.buffer, data.byteOffset, data.length)
  const out = new Uint16Array(data.length)
  if (dtype === "BF16") for (let i = 0; i < out.length; i++) out[i] = bfloat(words[i]!)
  else for (let i = 0; i < out.length; i++) out[i] = half(data[i]!)
  return new Uint8Array(out.buffer)
}

/** Upper 16 bits after adding just under half a unit, or exactly half where the last kept bit is odd. NaN stays NaN. */
function bfloat(word: number): number {
  if ((word & 0x7fffffff) > 0x7f800000) return (word >>> 16) | 0x40
  return (word + 0x7fff + ((word >>> 16) & 1)) >>> 16
}

/** IEEE half precision of a number that is already an f32. */
function half(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const x = Math.abs(value)
  if (Number.isNaN(x)) return 0x7e00
  if (x >= 65520) return sign | 0x7c00
  // Subnormals step by 2^-24, a binade with exponent e by 2^(e-10).
  const exponent = x < 2 ** -14 ? -14 : Math.floor(Math.log2(x))
  const steps = roundHalfEven(x / 2 ** (exponent - 10))
  // `steps` has its leading one at bit 10 unless subnormal; a carry into bit 11 moves to the next exponent by itself.
  return sign | (x < 2 ** -14 ? steps : ((exponent + 14) << 10) + steps)
}

function roundHalfEven(x: number): number {
  const low = Math.floor(x)
  const rest = x - low
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low
}

let halves: Uint32Array | undefined

/** f32 bits of all 65536 halves. */
function halfTable(): Uint32Array {
  if (halves) return halves
  const values = new Float32Array(65536)
  for (let h = 0; h < 65536; h++) {
    const exponent = (h >> 10) & 31
    const mantissa = h & 1023
    const size =
      exponent === 31
        ? mantissa
          ? Number.NaN
          : Number.POSITIVE_INFINITY
        : exponent === 0
          ? mantissa * 2 ** -24
          : (1024 + mantissa) * 2 ** (exponent - 25)
    values[h] = h & 0x8000 ? -size : size
  }
  halves = new Uint32Array(values.buffer)
  return halves
}

function littleEndian(bytes: Uint8Array): Uint8Array {
  if (!isLittleEndian) throw new MuscError("checkpoint files: a little-endian machine is needed, got a big-endian one")
  return bytes
}
