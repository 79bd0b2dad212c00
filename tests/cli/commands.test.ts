import { spawnSync } from "node:child_process"
import { cpSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { configKeys } from "../../lib/config/config"
import { loadConfig } from "../../lib/model/config"
import { parameterCount } from "../../lib/model/weights"
import { fixture } from "../support/tensors"

const dir = mkdtempSync(join(tmpdir(), "musc-commands-"))
const bin = join(__dirname, "../../lib/cli/bin.cjs")
const musc = (...args: string[]) =>
  spawnSync(process.execPath, [bin, ...args], { cwd: dir, encoding: "utf8", timeout: 110_000 })
const file = (name: string, text: string) => {
  writeFileSync(join(dir, name), text)
  return name
}

describe("the command line", () => {
  it("lists every setting with its default in the help of run", () => {
    const { stdout, status } = musc("run", "--help")
    expect(status).toBe(0)
    for (const key of configKeys) expect(stdout).toContain(`  ${key}=`)
  })

  it("refuses wrong settings, all at once, before it does anything", () => {
    const { stderr, status } = musc("run", "smoke", "--set", "lrr=1", "--set", "rank=0", "--out", "never")
    expect(status).toBe(1)
    expect(stderr).toMatch(/2 problems/)
    expect(stderr).toMatch(/lrr: there is no such setting; did you mean lr\?/)
    expect(stderr).toMatch(/rank: .*got 0; rank of the LoRA/)
    expect(existsSync(join(dir, "never"))).toBe(false)
    const option = musc("run", "smoke", "--set", "limit=3", "--out", "never")
    expect(option.stderr).toMatch(/limit: there is no such setting; set instructions and evalInstructions/)
    const number = musc("world", "instructions", "-n", "two")
    expect([number.status, number.stdout]).toEqual([1, ""])
    expect(number.stderr).toMatch(/argument 'two' is invalid/)
  })

  it("begins every example with npx where npx started it", () => {
    for (const name of ["run", "evaluate", "chat", "pull", "doctor"]) {
      const env = { ...process.env, npm_command: "exec" }
      const { stdout } = spawnSync(process.execPath, [bin, name, "--help"], { env, encoding: "utf8" })
      const examples = stdout.match(/^Examples:\n(.*\n)+?\n/m)![0]
      expect(examples).toContain(`npx musc ${name}`)
      expect(examples).not.toMatch(/(?<!npx )\bmusc [a-z]+ /)
    }
  })

  it("names file, line and remedy for a bad seed file, and opens no model for it", () => {
    file("bad.jsonl", '{"instruction":"a"}\n{"inst":3}\n')
    const { stderr, status } = musc("decompose", "bad.jsonl", "-o", "out.jsonl", "--model", fixture("llama"))
    expect(status).toBe(1)
    expect(stderr).toBe(
      "InputError: bad.jsonl, line 2: a record must have instruction, conversations, messages or prompt, got inst; rename the field\n",
    )
  })

  it("answers a prompt that chat is given, and looks at the adapter before the model is loaded", () => {
    const one = musc("chat", "Write", "about a sailor.", "--temperature", "0")
    expect([one.status, one.stdout.trim().split("\n").length]).toEqual([0, 1])
    expect(one.stdout).toMatch(/[a-z]+.*\./)
    // The same prompt as a line of standard input.
    const line = spawnSync(process.execPath, [bin, "chat", "--temperature", "0"], {
      ...{ cwd: dir, encoding: "utf8", timeout: 110_000, input: "/help\n/hlp\nWrite about a sailor.\n" },
    })
    expect(line.stdout).toMatch(/^ {2}\/help[\s\S]*\/hlp: unknown command/)
    expect(line.stdout.trim().split("\n").at(-1)).toBe(one.stdout.trim())
    const empty = musc("chat", "Was ist das?", "--temperature", "0")
    expect([empty.status, empty.stdout]).toEqual([0, "\n"])
    expect(empty.stderr).toMatch(/the model gave an empty answer; it knows short stories of its world only/)
    const wrong = musc("chat", "Hello", "--adapter", "nowhere")
    expect([wrong.status, wrong.stdout]).toEqual([1, ""])
    expect(wrong.stderr).toMatch(/^InputError: nowhere\/adapter_config\.json/) // and no line about a backend before it
  })

  it("plans the memory of a model from its settings alone", () => {
    const { stdout, status } = musc("plan", "--model", fixture("gemma3"), "--length", "64", "--batch", "2", "--json")
    expect(status).toBe(0)
    const { parameters, rows } = JSON.parse(stdout)
    expect(parameters).toBe(parameterCount(loadConfig(fixture("gemma3"))))
    expect(rows.map(({ name }: { name: string }) => name)).toContain("tensorflow, CPU")
    const text = musc("plan", "--model", fixture("gemma3")).stdout
    expect(text).toMatch(/load +generate +weigh +train +train, checkpointed\ntensorflow, CPU +\d\.\d\d/)
  })

  it("merges an adapter into a folder that it then loads", () => {
    const adapter = join(fixture("llama"), "adapter")
    const { stdout, status } = musc("merge", "--model", fixture("llama"), "--adapter", adapter, "--out", "merged")
    expect([stdout, status]).toEqual(["merged\n", 0])
    expect(loadConfig(join(dir, "merged"))).toEqual(loadConfig(fixture("llama")))
    const again = musc("merge", "--model", fixture("llama"), "--adapter", adapter, "--out", "merged")
    expect(again.stderr).toMatch(/^InputError: merged: must be a new or empty folder/m)
  })

  it("refuses a name that is none of the hub's", () => {
    const { stderr, status } = musc("pull", "../etc")
    expect([stderr, status]).toEqual([
      "InputError: a model must be org/name or org/name@revision, got ../etc; correct the name\n",
      1,
    ])
  })

  it("shows what a run would do without a model", () => {
    const { stdout, status } = musc("run", "smoke", "--limit", "7", "--dry-run")
    expect(status).toBe(0)
    expect(stdout).toMatch(/recombine +14 +answers/)
    expect(stdout).toMatch(/Instruction: [A-Z].*\nQuestions:/)
  })

  it("takes the settings that a file does not name from its recipe, and for the embedded model from smoke", () => {
    const settings = (text: string, ...more: string[]) => {
      const { stdout, stderr, status } = musc("run", file("mine.yaml", text), "--limit", "7", "--dry-run", ...more)
      return { status, stderr, stdout }
    }
    const own = settings("lr: 1e-4\n")
    expect(own.stdout).toMatch(/ {2}shots: 0\n/)
    expect(own.stdout).toMatch(/ {2}cutoff: 512\n/)
    expect(own.stdout).toMatch(/ {2}lr: 0\.0001\n/)
    expect(settings("recipe: paper\nrank: 4\n").stdout).toMatch(/"self-reward-yesno"[\s\S]* {2}rank: 4\n/)
    expect(settings("recipe: ablation-noise\nrank: 4\n").stdout).toMatch(/^10 runs:\n {2}all:/)
    expect(settings("lr: 1e-4\n", "--model", "org/name").stdout).not.toContain("cutoff")
    expect(settings("recipe: smoky\n")).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^InputError: mine\.yaml, recipe: .*got smoky; did you mean smoke\?/),
    })
    expect(settings("lr: 1e-4\nshots: 5\n").stderr).toContain("line 2, shots: must be at most 0 for the model world")
  })

  it("names file and line of a wrong setting, and not where the command line set it since", () => {
    const text = "recipe: smoke\nlr: fast\n'rank': many\n"
    const { stderr } = musc("run", file("mine.yaml", text), "--dry-run", "--set", "rank=few")
    expect(stderr).toContain('  - mine.yaml, line 2, lr: must be a number, got "fast"')
    expect(stderr).toContain('  - rank: must be a number, got "few"')
  })

  it("shows the prompts of a stage and counts its calls", () => {
    file("seeds.jsonl", '{"instruction":"Write about rain."}\n{"instruction":"Write about snow."}\n')
    const { stdout, status } = musc("decompose", "seeds.jsonl", "-o", "out.jsonl", "--dry-run", "--set", "shots=0")
    expect(status).toBe(0)
    expect(stdout).toContain("2 rows, at most 2 calls")
    expect(stdout).toContain("Instruction: Write about rain.\nQuestions:")
    expect(existsSync(join(dir, "out.jsonl"))).toBe(false)
  })

  it("weighs the pairs that have tokens for this model, and keeps the others with the reason", () => {
    cpSync(fixture("llama"), join(dir, "larger"), { recursive: true })
    const tokenizer = join(dir, "larger/tokenizer.json")
    const json = JSON.parse(readFileSync(tokenizer, "utf8"))
    json.added_tokens.push({ ...json.added_tokens[0], id: 300, content: "<|extra|>" })
    writeFileSync(tokenizer, JSON.stringify(json))
    const pair = {
      ...{ id: "a", instruction: "i", input: null, constraints: ["a", "b"], noised_constraints: ["a"] },
      edits: [{ index: 1, kind: "constraint-dropout", before: "b", after: null }],
      ...{ clean_instruction: "the rain", noised_instruction: "rain", chosen: "the", rejected: "rain" },
    }
    const rows = [pair, { ...pair, id: "b", chosen: "the <|extra|>" }, { ...pair, id: "c" }]
    file("pairs.jsonl", rows.map((row) => `${JSON.stringify(row)}\n`).join(""))
    const { stdout, status } = musc("weigh", "pairs.jsonl", "-o", "weighed.jsonl", "--model", "larger")
    expect([status, stdout]).toEqual([
      0,
      expect.stringMatching(/2 of 3 rows passed[\s\S]*1 failed, weigh: request refused/),
    ])
    const written = readFileSync(join(dir, "weighed.jsonl"), "utf8").trim().split("\n")
    expect(written.map((line) => JSON.parse(line).failure?.reason)).toEqual([
      undefined,
      'request refused: the model has no embedding for the token "<|extra|>" (id 300)',
      undefined,
    ])
    const args = ["weighed.jsonl", "-o", "trained", "--model", "larger", "--method", "coarse", "--set", "batchSize=2"]
    expect(musc("train", ...args).status).toBe(0)
  })

  it("runs a stage, finds it done, and does not overwrite it under other settings", () => {
    file("seeds.jsonl", '{"instruction":"Write about rain."}\n')
    const args = ["decompose", "seeds.jsonl", "-o", "rows.jsonl", "--model", fixture("llama"), "--set", "shots=0"]
    const short = [...args, "--set", "decomposeMaxTokens=8"]
    const { stdout, stderr, status } = musc(...short)
    // No row passed, which a script has to see.
    expect([status, stderr]).toEqual([1, expect.stringContaining("no row passed decompose: 1 of 1 rows failed")])
    expect(stdout).toMatch(
      /0 of 1 rows passed[\s\S]*1 failed, decompose: (cut off at the token limit|fewer than 2 constraints)/,
    )
    const written = readFileSync(join(dir, "rows.jsonl"), "utf8")
    expect(musc(...short).status).toBe(1)
    const other = musc(...args, "--set", "decomposeMaxTokens=9")
    expect(other.status).toBe(1)
    expect(other.stderr).toMatch(/rows\.jsonl: must be a new file or one made with these settings/)
    expect(readFileSync(join(dir, "rows.jsonl"), "utf8")).toBe(written)
  })
})
