import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { hasStack, killGroup, lastLine, musc, processorSeconds, sleep } from "./child"
import { Count, type Tally } from "./table"

const split = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false })
const loops = (depth: number, body: string): string =>
  depth ? `{% for i in range(10) %}${loops(depth - 1, body)}{% endfor %}` : body
const message = "{{ messages[0].content }}"

/** What a stranger changes in a model's folder: fields of tokenizer.json, or the template. */
const changes: Record<string, { tokenizer?: object; template?: string; config?: object }> = {
  "a pattern without end": { tokenizer: { pre_tokenizer: split("(\\S+\\s*)+$^") } },
  "a pattern that takes long": { tokenizer: { pre_tokenizer: split("(?:[a-z]+ ?)+(?=\\d)") } },
  "a text that grows": {
    tokenizer: {
      normalizer: {
        type: "Sequence",
        normalizers: Array(40).fill({ type: "Replace", pattern: { String: "e" }, content: "eee" }),
      },
    },
  },
  "steps of length 0": { tokenizer: { pre_tokenizer: { type: "FixedLength", length: 0 } } },
  "loops in loops": { template: loops(9, "x") + message },
  "a list that doubles": {
    template: `{% set x = namespace(a=[1]) %}{% for i in range(99) %}{% set x.a = x.a + x.a %}{% endfor %}${message}`,
  },
  "a macro that calls itself": {
    template: `{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}${message}`,
  },
  "a template that refuses": { template: "{{ raise_exception('no') }}" },
  "a billion layers": { config: { num_hidden_layers: 1e9 } },
}

/** Commands that load a model folder, each with a long text where it takes one. */
const commands = (model: string, files: Record<"seeds" | "pairs" | "weighed" | "adapter", string>, out: string) => ({
  chat: ["chat", "--model", model, "--max-tokens", "20", "the rain on the plain ".repeat(2000)],
  decompose: ["decompose", files.seeds, "-o", out, "--model", model],
  weigh: ["weigh", files.pairs, "-o", out, "--model", model],
  train: ["train", files.weighed, "-o", out, "--model", model, "--method", "coarse"],
  evaluate: ["evaluate", "-o", out, "--model", model, "--limit", "2"],
  benchmark: ["benchmark", "world", "--model", model, "--limit", "2", "--out", out],
  run: ["run", "smoke", "--model", model, "--limit", "2", "--no-cache", "--out", out],
  plan: ["plan", "--model", model],
  merge: ["merge", "--model", model, "--adapter", files.adapter, "--out", out],
  export: ["export", "weights", files.weighed, "--to", "musc-tdpo", "-o", out, "--model", model],
  push: ["push", model, "org/model"],
})

/**
 * Has each command work with each hostile folder and stops it by Ctrl-C or SIGTERM: it ends within two seconds of the
 * signal, or has ended by itself, with an error and no stack trace. On a busy machine processor seconds count.
 */
export async function hostileModels(
  root: string,
  { model, run, every, seconds }: { model: string; run: string; every: boolean; seconds: number },
): Promise<Tally> {
  const count = new Count("hostile model folders: commands stopped by signals")
  const end = Date.now() + 1000 * seconds
  mkdirSync(root, { recursive: true })
  const long = "the rain on the plain ".repeat(2000)
  const files = {
    seeds: join(root, "seeds.jsonl"),
    pairs: join(run, "seed-0/respond.jsonl"),
    weighed: join(run, "seed-0/weigh.jsonl"),
    adapter: join(model, "adapter"),
  }
  writeFileSync(files.seeds, `${JSON.stringify({ instruction: long })}\n`.repeat(3))
  // A sound model's time tells when a command is at its work on this machine.
  const calm = await musc(["chat", "--model", model, "--max-tokens", "20", "Sing."])
  let [slowest, alone, i] = [0, 0, 0]
  for (const [what, { tokenizer, template, config }] of Object.entries(changes)) {
    const folder = join(root, what.replaceAll(" ", "-"))
    cpSync(model, folder, { recursive: true })
    const change = (name: string, fields: object = {}) => {
      const file = join(folder, name)
      writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...fields }))
    }
    change("tokenizer.json", tokenizer)
    change("config.json", config)
    if (template) writeFileSync(join(folder, "chat_template.jinja"), template)
    const out = join(root, "out")
    for (const [name, args] of Object.entries(commands(folder, files, out))) {
      i++
      // The short form takes some of the pairs; each command and each change is among them.
      if ((!every && i % 9 !== 1) || Date.now() > end) continue
      rmSync(out, { recursive: true, force: true })
      const signal = i % 2 ? "SIGINT" : "SIGTERM"
      let sent = 0
      let [before, after] = [0, 0]
      const ended = await musc(args, {
        limit: 60,
        onStart: async (child) => {
          await sleep(1000 * calm.seconds * (0.5 + 0.2 * (i % 7)))
          if (child.exitCode !== null || child.signalCode !== null) return
          sent = Date.now()
          before = after = processorSeconds(child.pid!)
          child.kill(signal)
          while (child.exitCode === null && child.signalCode === null && Date.now() < sent + 30_000) {
            await sleep(50)
            after = processorSeconds(child.pid!) || after
          }
          killGroup(child)
        },
      })
      const took = sent ? Math.min((Date.now() - sent) / 1000, after - before) : 0
      if (!sent) alone++
      slowest = Math.max(slowest, took)
      const stack = hasStack(ended.output) && `${name}, ${what}: a stack trace: ${lastLine(ended.output)}`
      count.add(stack || (took > 2 ? `${name}, ${what}: ${took.toFixed(1)} s after ${signal}` : undefined))
    }
  }
  count.note = `${alone} ended by themselves; the others ${slowest.toFixed(1)} s after the signal at most (less of time and processor time)`
  return count
}
