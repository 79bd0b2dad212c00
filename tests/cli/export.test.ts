import { spawnSync } from "node:child_process"
import { cpSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { toFilePair } from "../../lib/data/pair-files"
import { respondMessages } from "../../lib/musc/respond"
import { encodeChats, withThinking } from "../../lib/text/chat"
import { loadTokenizer } from "../../lib/text/tokenizer"
import { encodePairs } from "../../lib/train/pairs"
import { fixture } from "../support/tensors"

const dir = mkdtempSync(join(tmpdir(), "musc-export-"))
const bin = join(__dirname, "../../lib/cli/bin.cjs")
const musc = (...args: string[]) =>
  spawnSync(process.execPath, [bin, ...args], { cwd: dir, encoding: "utf8", timeout: 110_000 })
const llama = fixture("llama")
const adapter = join(llama, "adapter")

describe("musc export", () => {
  it("takes its former kind merged as musc merge, with a note, and writes the same bytes", () => {
    const former = musc(
      "export",
      "merged",
      adapter,
      "--model",
      llama,
      "--to",
      "gguf-ready",
      "--dtype",
      "f32",
      "-o",
      "a",
    )
    expect([former.status, former.stdout]).toEqual([0, "a\n"])
    expect(former.stderr).toContain("note: `musc export merged` is now called `musc merge`")
    const now = musc("merge", "--adapter", adapter, "--model", llama, "--dtype", "f32", "--out", "b")
    expect(now.status).toBe(0)
    for (const file of ["config.json", "model.safetensors"]) {
      expect(readFileSync(join(dir, "a", file)).equals(readFileSync(join(dir, "b", file)))).toBe(true)
    }
    const { stderr, status } = musc("export", "merged", adapter, "-o", "c")
    expect([status, stderr]).toEqual([1, expect.stringContaining("--model: must name the adapter's base model")])
  })

  it("does not offer that kind in its help, and names musc merge", () => {
    const { stdout } = musc("export", "--help")
    expect(stdout).toContain("musc merge")
    expect(stdout).not.toMatch(/merged|--dtype/)
  })

  it("writes the ranking file of LLaMA-Factory from a TRL file, with its entry", () => {
    const pair = { prompt: "Name a colour.", chosen: "Red.", rejected: "Seven." }
    writeFileSync(join(dir, "trl.jsonl"), `${JSON.stringify(pair)}\n`)
    const { stdout, status } = musc("export", "pairs", "trl.jsonl", "--to", "llama-factory", "-o", "musc.json")
    expect(status).toBe(0)
    expect(stdout).toMatch(/^musc\.json: 1 pairs\nentry for dataset_info\.json:\n/)
    const [record] = JSON.parse(readFileSync(join(dir, "musc.json"), "utf8"))
    expect(record).toMatchObject({ instruction: "Name a colour.", chosen: "Red.", rejected: "Seven." })
  })

  // A template of a model that thinks: the prompt opens the thoughts, an answer without any stands behind the prompt alone.
  const thinking =
    "{% for m in messages %}{{ m.role + ':\\n' }}{% if m.role == 'assistant' and enable_thinking is not defined %}" +
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ m.content }}<|end|>\n{% endfor %}" +
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
  const opening =
    "{% for m in messages %}{{ m.role + ':\\n' + m.content | trim }}<|end|>\n{% endfor %}" +
    "{% if add_generation_prompt %}{{ 'assistant:\\n<think>\\n' }}{% endif %}"

  function weighed(template: string, on?: boolean) {
    const model = mkdtempSync(join(dir, "model-"))
    cpSync(llama, model, { recursive: true })
    writeFileSync(join(model, "chat_template.jinja"), template)
    const tokenizer = withThinking(loadTokenizer(model), on)
    const pair = { clean_instruction: "Name a colour.", chosen: " Red. ", rejected: "Seven" }
    const { promptIds, responses } = encodeChats(tokenizer, respondMessages(pair.clean_instruction, null), [
      pair.chosen,
      pair.rejected,
    ])
    const [chosen, rejected] = responses.map((ids) => ids.map((_, t) => t / 8)) as [number[], number[]]
    const signals = Object.fromEntries(
      ["logprob", "logprob_noised", "logprob_empty", "entropy", "entropy_noised", "kl", "kl_reverse", "tokens"].map(
        (name) => [name, []],
      ),
    )
    const row = {
      ...{ id: "a", instruction: "i", constraints: ["c", "d"], noised_constraints: ["c"], noised_instruction: "n" },
      ...{ edits: [{ index: 1, kind: "constraint-dropout", before: "d", after: null }], ...pair },
      ...{ signals: { chosen: signals, rejected: signals }, weights: { kl: { chosen, rejected } } },
    }
    const file = join(model, "weighed.jsonl")
    writeFileSync(file, `${JSON.stringify(row)}\n`)
    return { model, file, promptIds, chosen, rejected }
  }

  it.each([
    ["that opens thoughts in the prompt and strips content", opening, undefined],
    ["that writes empty thoughts before an answer", thinking, undefined],
    ["that writes none with thinking off", thinking, false],
  ])("writes weights that train reads on the same tokens, with a template %s", (_, template, on) => {
    const { model, file, promptIds, chosen, rejected } = weighed(template, on)
    const out = join(model, "tdpo.json")
    const flags = on === undefined ? [] : ["--thinking", "off"]
    const { stderr, status } = musc("export", "weights", file, "--model", model, ...flags, "-o", out)
    expect([stderr, status]).toEqual(["", 0])
    const [record] = JSON.parse(readFileSync(out, "utf8"))
    expect(record.source_token_scores).toHaveLength(promptIds.length)
    const { prompt, tokenWeights, ...pair } = toFilePair(record, { file: out, record: 1 })
    expect(tokenWeights).toEqual({ chosen, rejected })
    const tokenizer = withThinking(loadTokenizer(model), on)
    const [item] = encodePairs(tokenizer, [{ ...pair, prompt, weights: tokenWeights }], 100)
    expect(item).toMatchObject({ prompt: promptIds, chosenWeights: chosen, rejectedWeights: rejected })
  })

  it("refuses weights of another model, template or thinking setting", () => {
    const { model, file, chosen } = weighed(thinking)
    const { stderr, status } = musc("export", "weights", file, "--model", model, "--thinking", "off", "-o", "never")
    expect(status).toBe(1)
    expect(stderr).toMatch(`weights must have one number a token of the chosen answer`)
    expect(stderr).toMatch(`got ${chosen.length}`)
  })

  it("refuses options that the kind does not read", () => {
    const { stderr, status } = musc("export", "adapter", adapter, "--weighting", "kl", "-o", "never")
    expect([status, stderr]).toEqual([1, "InputError: --weighting: has no effect on adapter, got kl; leave it out\n"])
    expect(existsSync(join(dir, "never"))).toBe(false)
  })
})
