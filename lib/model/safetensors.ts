import { createHash } from "node:crypto"
import { closeSync, createReadStream, existsSync, fstatSync, openSync, readSync, writeSync } from "node:fs"
import { basename, join } from "node:path"
import { finish } from "../data/files"
import { isJsonObject, type JsonObject, readJsonFile, show } from "../data/json-file"
import { CheckpointError } from "../errors"
import { type FloatDtype, floatBytes, fromBytes, toBytes } from "./floats"

/** Where one tensor lies; `begin` and `end` are byte offsets in the file. */
export interface TensorEntry {
  /** F32, F16 and BF16 can be read; others are listed only. */
  dtype: string
  shape: readonly number[]
  begin: number
  end: number
}

/** Named tensors on disk. Only the header is in memory; close after use. */
export interface TensorFile {
  tensors: ReadonlyMap<string, TensorEntry>
  metadata: Readonly<Record<string, string>>
  /**
   * One tensor as f32, row-major, or of its values those from `begin` to before `end`; only their bytes are read.
   * @throws CheckpointError where there is no such tensor or it is not a float tensor.
   */
  read(name: string, begin?: number, end?: number): Float32Array
  close(): void
}

/** Bits of every dtype of the format. */
const bits: Record<string, number> = {
  ...{
    F64: 64,
    F32: 32,
    F16: 16,
    BF16: 16,
    I64: 64,
    I32: 32,
    I16: 16,
    I8: 8,
    U64: 64,
    U32: 32,
    U16: 16,
    U8: 8,
    BOOL: 8,
  },
  ...{ C64: 64, F8_E4M3: 8, F8_E5M2: 8, F8_E8M0: 8, F6_E2M3: 6, F6_E3M2: 6, F4: 4 },
}
/** The format's own limit. */
const maxHeaderBytes = 100_000_000
const maxTensors = 1_000_000
const maxRank = 16

/**
 * Opens a safetensors file. The header is not trusted: sizes, offsets, gaps and overlaps are checked before any of it
 * is used.
 * @throws CheckpointError with every problem found.
 */
export function openSafetensors(file: string): TensorFile {
  if (!existsSync(file)) throw new CheckpointError(file, ["a safetensors file must be here, got none; check the path"])
  const fd = openSync(file, "r")
  try {
    const { tensors, metadata } = readHeader(fd, file)
    const read = (name: string, begin = 0, end = Number.POSITIVE_INFINITY) => {
      const entry = tensors.get(name)
      if (!entry) throw new CheckpointError(file, [`has no tensor ${show(name)}; it has ${some([...tensors.keys()])}`])
      if (!(entry.dtype in floatBytes)) {
        throw new CheckpointError(file, [
          `${name} must be F32, F16 or BF16, got ${entry.dtype}; convert the checkpoint`,
        ])
      }
      const dtype = entry.dtype as FloatDtype
      const from = entry.begin + begin * floatBytes[dtype]
      const to = Math.min(entry.begin + end * floatBytes[dtype], entry.end)
      return fromBytes(readExactly(fd, from, to - from, file), dtype)
    }
    let open = true
    const close = () => {
      if (open) closeSync(fd)
      open = false
    }
    return { tensors, metadata, read, close }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/**
 * The weights of a Hugging Face model folder: `model.safetensors`, or the shards of `model.safetensors.index.json`.
 * @throws CheckpointError: no such weights (with the cure for `pytorch_model.bin`), shards missing or inconsistent.
 */
export function openCheckpoint(dir: string): TensorFile {
  const indexFile = join(dir, "model.safetensors.index.json")
  if (existsSync(join(dir, "model.safetensors"))) return openSafetensors(join(dir, "model.safetensors"))
  if (!existsSync(indexFile)) {
    const bin = ["pytorch_model.bin", "pytorch_model.bin.index.json"].find((name) => existsSync(join(dir, name)))
    const got = bin
      ? `got only ${bin}, a Python pickle; save it again with transformers: ` +
        "AutoModelForCausalLM.from_pretrained(dir).save_pretrained(dir)"
      : "got neither; give a Hugging Face model folder"
    throw new CheckpointError(dir, [`must hold model.safetensors or model.safetensors.index.json, ${got}`])
  }
  const weightMap = readJsonFile(indexFile).weight_map
  if (!isJsonObject(weightMap))
    throw new CheckpointError(indexFile, ["weight_map must be an object; fetch the file again"])
  const names = Object.entries(weightMap)
  const odd = names.find(([, shard]) => typeof shard !== "string" || shard !== basename(shard) || shard.startsWith("."))
  if (odd) throw new CheckpointError(indexFile, [`weight_map must name files of the same folder, got ${show(odd[1])}`])
  const shards = new Map<string, TensorFile>()
  const close = () => {
    for (const shard of shards.values()) shard.close()
  }
  try {
    for (const shard of new Set(names.map(([, name]) => name as string)))
      shards.set(shard, openSafetensors(join(dir, shard)))
    const tensors = new Map<string, TensorEntry>()
    const missing = []
    for (const [name, shard] of names) {
      const entry = shards.get(shard as string)!.tensors.get(name)
      if (entry) tensors.set(name, entry)
      else missing.push(`${name} is not in ${shard}, where weight_map has it; fetch the shards again`)
    }
    if (missing.length) throw new CheckpointError(indexFile, missing)
    const read = (name: string, begin?: number, end?: number) => {
      const shard = weightMap[name]
      if (!tensors.has(name))
        throw new CheckpointError(indexFile, [`has no tensor ${show(name)}; it has ${some([...tensors.keys()])}`])
      return shards.get(shard as string)!.read(name, begin, end)
    }
    return { tensors, metadata: {}, read, close }
  } catch (error) {
    close()
    throw error
  }
}

export interface TensorData {
  name: string
  shape: readonly number[]
  /** as stored; floats are rounded to nearest, ties to even */
  dtype: FloatDtype | "I32"
  /** [product of `shape`], or a function that makes them when it is their turn; an Int32Array for I32 */
  data: Float32Array | Int32Array | (() => Float32Array | Promise<Float32Array>)
}

/**
 * Writes a safetensors file, tensor by tensor, under a temporary name; it appears complete or not at all. `tensors` is
 * gone through twice (header, then data), so it must be re-iterable. With `hashed`, the metadata get the sha256 of the
 * file, taken with zeros instead of the hash, which `verifySafetensors` compares.
 * @throws CheckpointError: a name twice, or a shape that does not fit its data.
 */
export async function writeSafetensors(
  file: string,
  tensors: Iterable<TensorData>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
  { hashed = false } = {},
): Promise<void> {
  const header: JsonObject = Object.assign(Object.create(null), {
    __metadata__: hashed ? { ...metadata, sha256: noHash } : metadata,
  })
  let offset = 0
  for (const { name, shape, dtype } of tensors) {
    if (Object.hasOwn(header, name)) throw new CheckpointError(file, [`tensor names must differ, got ${name} twice`])
    const begin = offset
    offset += shape.reduce((a, b) => a * b, 1) * (dtype === "I32" ? 4 : floatBytes[dtype])
    header[name] = { dtype, shape: [...shape], data_offsets: [begin, offset] }
  }
  // The format wants data to start at a multiple of 8; spaces fill up.
  const json = Buffer.from(JSON.stringify(header))
  const head = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, " ")
  head.writeBigUInt64LE(BigInt(head.length - 8))
  json.copy(head, 8)

  await finish(file, async (temporary) => {
    const fd = openSync(temporary, "wx")
    const hash = createHash("sha256")
    const add = (bytes: Uint8Array) => {
      if (hashed) hash.update(bytes)
      writeAll(fd, bytes)
    }
    try {
      add(head)
      for (const { name, shape, dtype, data } of tensors) {
        const size = shape.reduce((a, b) => a * b, 1)
        const values = typeof data === "function" ? await data() : data
        if (size !== values.length) {
          throw new CheckpointError(file, [
            `${name} must have ${size} values for shape [${shape.join(", ")}], got ${values.length}`,
          ])
        }
        add(bytesOf(values, dtype))
      }
      if (hashed) writeSync(fd, hash.digest("hex"), head.indexOf(noHash))
    } finally {
      closeSync(fd)
    }
  })
}

const noHash = "0".repeat(64)

/**
 * Opens a safetensors file that was written `hashed`, and compares its hash; returns its metadata.
 * @throws CheckpointError for a file that is damaged or has no hash
 */
export async function verifySafetensors(file: string): Promise<Pick<TensorFile, "metadata">> {
  const { metadata, close } = openSafetensors(file)
  close()
  const hash = createHash("sha256")
  let blanked = false
  for await (const block of createReadStream(file, { highWaterMark: 1 << 24 }) as AsyncIterable<Buffer>) {
    const at = blanked || !metadata.sha256 ? -1 : block.indexOf(metadata.sha256)
    if (at >= 0) block.write(noHash, at)
    blanked = true // the header of a training state is far shorter than a block
    hash.update(block)
  }
  if (hash.digest("hex") === metadata.sha256) return { metadata }
  throw new CheckpointError(file, ["has other content than when it was written"])
}

function bytesOf(values: Float32Array | Int32Array, dtype: TensorData["dtype"]): Uint8Array {
  if (dtype !== "I32") return toBytes(values as Float32Array, dtype)
  return new Uint8Array(Int32Array.from(values).buffer)
}

function readHeader(fd: number, file: string): { tensors: Map<string, TensorEntry>; metadata: Record<string, string> } {
  const bad = (...problems: string[]) => new CheckpointError(file, problems.slice(0, 20))
  const stat = fstatSync(fd)
  if (!stat.isFile()) throw bad("must be a regular file; check the path")
  if (stat.size < 8) throw bad(`a safetensors file has at least 8 bytes, got ${stat.size}; fetch it again`)
  const length = Number(readExactly(fd, 0, 8, file).readBigUInt64LE())
  if (length > maxHeaderBytes || length > stat.size - 8) {
    const hint =
      readExactly(fd, 0, 7, file).toString("latin1") === "version"
        ? "this is a Git LFS pointer, fetch the file itself"
        : "fetch the file again"
    throw bad(`header must have at most ${Math.min(maxHeaderBytes, stat.size - 8)} bytes, got ${length}; ${hint}`)
  }
  let header: unknown
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(readExactly(fd, 8, length, file)))
  } catch (cause) {
    throw bad(`header must be JSON in UTF-8, got ${(cause as Error).message}; fetch the file again`)
  }
  if (!isJsonObject(header)) throw bad("header must be a JSON object; fetch the file again")
  const { __metadata__: meta = {}, ...rest } = header
  if (!isJsonObject(meta) || Object.values(meta).some((value) => typeof value !== "string")) {
    throw bad("__metadata__ must map texts to texts")
  }
  const entries = Object.entries(rest)
  if (entries.length > maxTensors) throw bad(`must hold at most ${maxTensors} tensors, got ${entries.length}`)

  const start = 8 + length
  const problems: string[] = []
  const tensors = new Map<string, TensorEntry>()
  for (const [name, value] of entries) {
    const entry = parseEntry(value, stat.size - start)
    if (typeof entry === "string") problems.push(`${name}: ${entry}`)
    else tensors.set(name, { ...entry, begin: entry.begin + start, end: entry.end + start })
  }
  if (problems.length) throw bad(...problems)
  // In order of offset the tensors must tile the data exactly: no overlap, no hole, nothing after the last.
  let at = start
  for (const [name, { begin, end }] of [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== at)
      throw bad(
        `${name} must begin at byte ${at - start} of the data, got ${begin - start}; tensors overlap or leave a hole`,
      )
    at = end
  }
  if (at !== stat.size) throw bad(`data must end at byte ${at}, got a file of ${stat.size}; fetch it again`)
  return { tensors, metadata: meta as Record<string, string> }
}

/** The entry with offsets as in the header, or what is wrong with it. */
function parseEntry(value: unknown, dataBytes: number): TensorEntry | string {
  if (!isJsonObject(value)) return "must be an object"
  const { dtype, shape, data_offsets: offsets } = value
  if (typeof dtype !== "string" || !Object.hasOwn(bits, dtype)) return `unknown dtype ${show(dtype)}`
  const natural = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0
  if (!Array.isArray(shape) || shape.length > maxRank || !shape.every(natural)) {
    return `shape must be at most ${maxRank} whole numbers, got ${show(shape)}`
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(natural)) {
    return `data_offsets must be two whole numbers, got ${show(offsets)}`
  }
  const [begin, end] = offsets as [number, number]
  if (begin > end || end > dataBytes)
    return `data_offsets must lie in order within ${dataBytes} bytes, got [${begin}, ${end}]`
  // A product above 2^53 is inexact, but then it is far above any file size as well.
  const size = (shape.reduce((a: number, b: number) => a * b, 1) * bits[dtype]!) / 8
  if (size !== end - begin) return `shape [${shape.join(", ")}] of ${dtype} takes ${size} bytes, got ${end - begin}`
  return { dtype, shape, begin, end }
}

/** `length` bytes from `position`, in an own buffer that starts at an aligned address. */
function readExactly(fd: number, position: number, length: number, file: string): Buffer {
  const out = Buffer.from(new ArrayBuffer(length))
  for (let done = 0; done < length; ) {
    const n = readSync(fd, out, done, Math.min(length - done, 2 ** 30), position + done)
    if (n === 0)
      throw new CheckpointError(file, [`ended at byte ${position + done}; it has been cut off while being read`])
    done += n
  }
  return out
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, Math.min(bytes.length - done, 2 ** 30))
}

/** The first few names, for messages. */
function some(names: readonly string[]): string {
  return names.length ? `${names.slice(0, 4).join(", ")}${names.length > 4 ? `, … (${names.length})` : ""}` : "none"
}
