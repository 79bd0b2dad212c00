import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { join } from "node:path"

const world = join(__dirname, "../../data/models/world")

/** A Llama of 7.3 billion parameters in f32: 29 GB, with the vocabulary of the embedded model. */
export const largeShape = { hidden_size: 4096, intermediate_size: 11008, num_hidden_layers: 36, vocab_size: 1087 }

/**
 * A model folder whose weights are files of the right size that take no space on the disk: every value is 0. A shard
 * holds nine layers.
 */
export function sparseModel(dir: string): string {
  mkdirSync(dir, { recursive: true })
  for (const name of ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "musc.json"])
    copyFileSync(join(world, name), join(dir, name))
  const heads = { num_attention_heads: 32, num_key_value_heads: 32, head_dim: 128 }
  const config = { ...JSON.parse(readFileSync(join(world, "config.json"), "utf8")), ...largeShape, ...heads }
  writeFileSync(join(dir, "config.json"), JSON.stringify({ ...config, dtype: "float32", torch_dtype: "float32" }))
  const { hidden_size: d, intermediate_size: inner, vocab_size: vocabulary } = largeShape
  const layer = (i: number): [string, number[]][] => [
    ...["q", "k", "v", "o"].map((name): [string, number[]] => [`layers.${i}.self_attn.${name}_proj`, [d, d]]),
    ...["gate", "up"].map((name): [string, number[]] => [`layers.${i}.mlp.${name}_proj`, [inner, d]]),
    [`layers.${i}.mlp.down_proj`, [d, inner]],
    [`layers.${i}.input_layernorm`, [d]],
    [`layers.${i}.post_attention_layernorm`, [d]],
  ]
  const edges: [string, number[]][] = [
    ["embed_tokens", [vocabulary, d]],
    ["norm", [d]],
  ]
  const shards = [0, 9, 18, 27].map((from) => Array.from({ length: 9 }, (_, i) => layer(from + i)).flat())
  shards[0]!.push(...edges)
  const map: Record<string, string> = {}
  shards.forEach((tensors, i) => {
    const file = `model-${i + 1}-of-${shards.length}.safetensors`
    let end = 0
    const header = Object.fromEntries(
      tensors.map(([name, shape]) => {
        map[`model.${name}.weight`] = file
        const begin = end
        end += 4 * shape.reduce((a, b) => a * b)
        return [`model.${name}.weight`, { dtype: "F32", shape, data_offsets: [begin, end] }]
      }),
    )
    const text = Buffer.from(JSON.stringify(header))
    const size = Buffer.alloc(8)
    size.writeBigUInt64LE(BigInt(text.length))
    const handle = openSync(join(dir, file), "w")
    writeSync(handle, Buffer.concat([size, text]))
    ftruncateSync(handle, 8 + text.length + end)
    closeSync(handle)
  })
  writeFileSync(join(dir, "model.safetensors.index.json"), JSON.stringify({ weight_map: map }))
  return dir
}
