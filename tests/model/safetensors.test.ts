import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { CheckpointError } from "../../lib/errors"
import { openCheckpoint, openSafetensors, type TensorData, writeSafetensors } from "../../lib/model/safetensors"

const dir = mkdtempSync(join(tmpdir(), "safetensors-"))
afterAll(() => rmSync(dir, { recursive: true }))

/** A file of a header (text, bytes or an object) and `dataBytes` zeros. */
function fileOf(header: unknown, dataBytes = 0, headerLength?: bigint): string {
  const json = Buffer.isBuffer(header)
    ? header
    : Buffer.from(typeof header === "string" ? header : JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(headerLength ?? BigInt(json.length))
  const file = join(dir, "made.safetensors")
  writeFileSync(file, Buffer.concat([length, json, Buffer.alloc(dataBytes)]))
  return file
}

function raw(text: string): string {
  writeFileSync(join(dir, "raw.safetensors"), text)
  return join(dir, "raw.safetensors")
}

const f32 = (shape: unknown, data_offsets: unknown) => ({ dtype: "F32", shape, data_offsets })

describe("what is written is read back", () => {
  // 1/3 = 1.0101…·2^-2: bf16 keeps 8 bits of it, 171/512; half keeps 11, 1365/4096. 1 + 2^-8 and 1 + 3·2^-8 lie halfway
  // between two bf16 and go to the even one: down to 1, up to 1 + 2^-6. 65520 lies halfway between the largest half and
  // what would be the next, and becomes infinite; 2^-25 lies halfway between 0 and the smallest half, 3·2^-25 above it.
  const values = [
    1 / 3,
    1 + 2 ** -8,
    1 + 3 * 2 ** -8,
    65519,
    65520,
    2 ** -25,
    3 * 2 ** -25,
    -0,
    Number.NEGATIVE_INFINITY,
    Number.NaN,
  ]
  const wanted = {
    F32: values.map(Math.fround),
    BF16: [171 / 512, 1, 1 + 2 ** -6, 65536, 65536, 2 ** -25, 3 * 2 ** -25, -0, Number.NEGATIVE_INFINITY, Number.NaN],
    F16: [
      1365 / 4096,
      1 + 2 ** -8,
      1 + 3 * 2 ** -8,
      65504,
      Number.POSITIVE_INFINITY,
      0,
      2 ** -23,
      -0,
      Number.NEGATIVE_INFINITY,
      Number.NaN,
    ],
  }
  it.each(["F32", "BF16", "F16"] as const)("in %s, rounded to nearest, ties to even", async (dtype) => {
    const file = join(dir, "round.safetensors")
    await writeSafetensors(file, [{ name: "x", shape: [2, 5], dtype, data: new Float32Array(values) }], {
      format: "pt",
      note: "é",
    })
    const read = openSafetensors(file)
    expect(read.tensors.get("x")).toMatchObject({ dtype, shape: [2, 5] })
    expect([...read.read("x")]).toEqual(wanted[dtype])
    expect(read.metadata).toEqual({ format: "pt", note: "é" })
    read.close()
  })

  it("with scalars, empty tensors, odd offsets and names that JavaScript objects treat specially", async () => {
    const file = join(dir, "odd.safetensors")
    const one = (name: string, shape: number[], data: number[], dtype: TensorData["dtype"] = "F32"): TensorData => {
      return { name, shape, dtype, data: new Float32Array(data) }
    }
    await writeSafetensors(file, [
      one("three", [3], [1, 2, 3], "F16"),
      one("scalar", [], [4]),
      one("empty", [0, 7], []),
      one("__proto__", [2], [5, 6]),
    ])
    const read = openSafetensors(file)
    expect([...read.tensors.keys()].map((name) => [...read.read(name)])).toEqual([[1, 2, 3], [4], [], [5, 6]])
    expect(() => read.read("absent")).toThrow(/has no tensor "absent"; it has three, scalar, empty, __proto__/)
    read.close()
  })

  it("and a failed write leaves neither a file nor a temporary one", async () => {
    const place = join(dir, "failed")
    mkdirSync(place)
    const bad = { name: "x", shape: [3], dtype: "F32", data: new Float32Array(2) } as const
    await expect(writeSafetensors(join(place, "x.safetensors"), [bad])).rejects.toThrow(
      /x must have 3 values for shape \[3\], got 2/,
    )
    const twice = { ...bad, shape: [2] }
    await expect(writeSafetensors(join(place, "x.safetensors"), [twice, twice])).rejects.toThrow(/got x twice/)
    expect(readdirSync(place)).toEqual([])
  })
})

describe("a header is not trusted", () => {
  const cases: [string, () => string, RegExp][] = [
    ["no file", () => join(dir, "none.safetensors"), /got none; check the path/],
    ["a folder", () => dir, /regular file/],
    ["a file too short for a length", () => raw("abc"), /at least 8 bytes, got 3/],
    ["a header longer than the file", () => fileOf("{}", 0, 100n), /header must have at most 2 bytes, got 100/],
    ["a header length of 2^64 - 1", () => fileOf("{}", 0, 2n ** 64n - 1n), /header must have at most/],
    ["a Git LFS pointer", () => raw("version https://git-lfs"), /Git LFS pointer/],
    ["invalid UTF-8", () => fileOf(Buffer.from([0x7b, 0xff, 0x7d])), /JSON in UTF-8/],
    ["invalid JSON", () => fileOf("{,}"), /JSON in UTF-8/],
    ["an array", () => fileOf("[]"), /JSON object/],
    ["metadata with numbers", () => fileOf({ __metadata__: { a: 1 } }), /__metadata__ must map texts to texts/],
    ["an entry that is a number", () => fileOf({ x: 1 }), /x: must be an object/],
    ["an unknown dtype", () => fileOf({ x: { ...f32([1], [0, 4]), dtype: "F31" } }, 4), /x: unknown dtype "F31"/],
    [
      "a dtype that every object has",
      () => fileOf({ x: { ...f32([1], [0, 4]), dtype: "toString" } }, 4),
      /unknown dtype/,
    ],
    ["a negative dimension", () => fileOf({ x: f32([-1], [0, 4]) }, 4), /x: shape must be/],
    ["a fractional dimension", () => fileOf({ x: f32([0.5, 2], [0, 4]) }, 4), /x: shape must be/],
    [
      "a shape of 1000 dimensions",
      () => fileOf({ x: f32(Array(1000).fill(1), [0, 4]) }, 4),
      /x: shape must be at most/,
    ],
    [
      "a shape nested 100000 deep",
      () => fileOf(`{"x":{"dtype":"F32","data_offsets":[0,4],"shape":${"[".repeat(1e5)}${"]".repeat(1e5)}}}`, 4),
      /shape must be/,
    ],
    ["a product above 2^64", () => fileOf({ x: f32([2 ** 40, 2 ** 40], [0, 4]) }, 4), /takes .* bytes, got 4/],
    [
      "a product of zero and infinity",
      () => fileOf({ x: f32([...Array(15).fill(2 ** 53 - 1), ...[0]], [0, 4]) }, 4),
      /bytes, got 4/,
    ],
    ["offsets that are not numbers", () => fileOf({ x: f32([1], ["0", "4"]) }, 4), /data_offsets must be two/],
    ["offsets in reverse", () => fileOf({ x: f32([1], [4, 0]) }, 4), /data_offsets must lie in order/],
    ["offsets beyond the file", () => fileOf({ x: f32([2], [0, 8]) }, 4), /within 4 bytes, got \[0, 8\]/],
    ["a size that does not fit the shape", () => fileOf({ x: f32([3], [0, 8]) }, 8), /takes 12 bytes, got 8/],
    ["tensors that overlap", () => fileOf({ x: f32([2], [0, 8]), y: f32([2], [4, 12]) }, 12), /y must begin at byte 8/],
    [
      "two tensors in one place",
      () => fileOf({ x: f32([1], [0, 4]), y: f32([1], [0, 4]) }, 4),
      /overlap or leave a hole/,
    ],
    ["a hole", () => fileOf({ x: f32([1], [0, 4]), y: f32([1], [8, 12]) }, 12), /y must begin at byte 4/],
    ["bytes after the last tensor", () => fileOf({ x: f32([1], [0, 4]) }, 5), /data must end at byte/],
  ]
  it.each(cases)("%s is refused", (_, make, message) => {
    const file = make()
    expect(() => openSafetensors(file)).toThrow(CheckpointError)
    expect(() => openSafetensors(file)).toThrow(message)
  })

  it("names every bad tensor at once", () => {
    expect(() => openSafetensors(fileOf({ x: 1, y: f32([1], [9, 9]) }))).toThrow(/x: .*; y: /)
  })

  it("lists integer tensors but does not read them as floats", async () => {
    const read = openSafetensors(fileOf({ ids: { ...f32([1], [0, 8]), dtype: "I64" } }, 8))
    expect(read.tensors.get("ids")?.shape).toEqual([1])
    expect(() => read.read("ids")).toThrow(/ids must be F32, F16 or BF16, got I64/)
    read.close()
  })
})

describe("a model folder", () => {
  const shard = (name: string, tensor: string, value: number) =>
    writeSafetensors(name, [{ name: tensor, shape: [1], dtype: "F32", data: new Float32Array([value]) }])

  it("is read from all shards of its index", async () => {
    const place = mkdtempSync(join(dir, "shards-"))
    await shard(join(place, "a.safetensors"), "x", 1)
    await shard(join(place, "b.safetensors"), "y", 2)
    const index = { weight_map: { x: "a.safetensors", y: "b.safetensors" } }
    writeFileSync(join(place, "model.safetensors.index.json"), JSON.stringify(index))
    const read = openCheckpoint(place)
    expect([...read.tensors.keys()].map((name) => read.read(name)[0])).toEqual([1, 2])
    expect(() => read.read("toString")).toThrow(/has no tensor/)
    read.close()
  })

  it.each([
    ["a shard outside of the folder", { x: "../a.safetensors" }, /files of the same folder, got "..\/a.safetensors"/],
    ["a tensor that its shard lacks", { x: "a.safetensors", z: "a.safetensors" }, /z is not in a.safetensors/],
    ["a shard that is not there", { x: "c.safetensors" }, /c.safetensors: a safetensors file must be here/],
    ["an index without a map", undefined, /weight_map must be an object/],
  ])("with %s is refused", async (_, weight_map, message) => {
    const place = mkdtempSync(join(dir, "bad-"))
    await shard(join(place, "a.safetensors"), "x", 1)
    writeFileSync(join(place, "model.safetensors.index.json"), JSON.stringify({ weight_map }))
    expect(() => openCheckpoint(place)).toThrow(message)
  })

  it("with a pickle only is refused with the cure", () => {
    const place = mkdtempSync(join(dir, "pickle-"))
    writeFileSync(join(place, "pytorch_model.bin"), "")
    expect(() => openCheckpoint(place)).toThrow(
      /got only pytorch_model.bin, a Python pickle; save it again with transformers/,
    )
    expect(existsSync(join(place, "model.safetensors"))).toBe(false)
  })
})
