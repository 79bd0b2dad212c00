import { crc32, deflateSync } from "node:zlib"

/** Most colours of an indexed PNG. */
const MOST = 256

/**
 * An opaque image as a PNG of at most 256 colours: the most frequent ones, all others as the nearest of them. Figures
 * have few colours beside the shades at the edges of letters, and come out at a third of their size in full colour.
 * `pixels`: red, green, blue and alpha of `width` x `height` pixels, row by row.
 */
export function indexedPng({ width, height, pixels }: { width: number; height: number; pixels: Uint8Array }): Buffer {
  const colourAt = (i: number) => (pixels[4 * i]! << 16) | (pixels[4 * i + 1]! << 8) | pixels[4 * i + 2]!
  const counts = new Map<number, number>()
  for (let i = 0; i < width * height; i++) counts.set(colourAt(i), (counts.get(colourAt(i)) ?? 0) + 1)
  const frequent = [...counts].sort(([, a], [, b]) => b - a).slice(0, MOST)
  const palette = frequent.map(([colour]) => colour)
  const indexOf = new Map(palette.map((colour, i) => [colour, i]))
  for (const colour of counts.keys()) if (!indexOf.has(colour)) indexOf.set(colour, nearest(colour, palette))
  const rows = Buffer.alloc(height * (width + 1)) // each row begins with its filter: none
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) rows[y * (width + 1) + 1 + x] = indexOf.get(colourAt(y * width + x))!
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([8, 3], 8) // 8 bits a pixel, by palette
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", header),
    chunk("PLTE", Buffer.from(palette.flatMap(channels))),
    chunk("IDAT", deflateSync(rows, { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ])
}

const channels = (colour: number) => [colour >> 16, (colour >> 8) & 255, colour & 255]

function nearest(colour: number, palette: readonly number[]): number {
  const wanted = channels(colour)
  const distance = (other: number) => channels(other).reduce((sum, value, c) => sum + (value - wanted[c]!) ** 2, 0)
  return palette.reduce((best, other, i) => (distance(other) < distance(palette[best]!) ? i : best), 0)
}

function chunk(kind: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(kind, "latin1"), data])
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)]
  length.writeUInt32BE(data.length)
  check.writeUInt32BE(crc32(body))
  return Buffer.concat([length, body, check])
}
