// Stands for the program that starts Python: torch-stub.cjs score.py|train.py JOB. It reads the job folder as the script
// would, and writes signals or an adapter of the right shapes without a model.
const { cpSync, readFileSync, writeFileSync } = require("node:fs")
const { join } = require("node:path")
const [script, job] = process.argv.slice(2)

/** One tensor of I32 of a safetensors file, and its shape. */
function integers(file, name) {
  const bytes = readFileSync(join(job, file))
  const size = Number(bytes.readBigUInt64LE())
  const { shape, data_offsets } = JSON.parse(bytes.subarray(8, 8 + size))[name]
  const [from, to] = data_offsets.map((offset) => 8 + size + offset)
  return { shape, values: Array.from({ length: (to - from) / 4 }, (_, i) => bytes.readInt32LE(from + 4 * i)) }
}

const put = (file, lines) => writeFileSync(join(job, file), lines.map((line) => `${JSON.stringify(line)}\n`).join(""))

if (script === "score.py") {
  const { values: starts } = integers("requests.safetensors", "starts")
  const names = ["logprob", "logprob_noised", "logprob_empty", "entropy", "entropy_noised", "kl", "kl_reverse"]
  const answer = (part) => {
    const n = starts[part + 1] - starts[part]
    const value = (name) => (name.startsWith("logprob") ? -1 : 0.5)
    return Object.fromEntries(names.map((name) => [name, Array.from({ length: n }, (_, i) => value(name) / (i + 1))]))
  }
  const rows = (starts.length - 1) / 5
  const line = (row) => ({ row, chosen: answer(5 * row + 3), rejected: answer(5 * row + 4) })
  put(
    "signals-0-of-1.jsonl",
    Array.from({ length: rows }, (_, row) => line(row)),
  )
  writeFileSync(join(job, "signals-0-of-1.done"), "")
} else {
  const [steps] = integers("order.safetensors", "row").shape
  const line = (step) => ({ step, steps, loss: Math.LN2, lr: 1e-4, grad_norm: 1, tokens: 10, margin: 0, accuracy: 0.5 })
  put(
    "metrics.jsonl",
    Array.from({ length: steps }, (_, i) => ({ ...line(i + 1), chosen_reward: 0, rejected_reward: 0 })),
  )
  cpSync(join(job, "init"), join(job, "adapter"), { recursive: true })
}
