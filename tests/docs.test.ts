import { existsSync, mkdtempSync, readdirSync, readFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { Command } from "commander"
import ts from "typescript"
import { afterEach, describe, expect, it, vi } from "vitest"
import { readConfig } from "../lib/cli/support"
import { recipes } from "../lib/config/recipes"
import { readJsonFile } from "../lib/data/json-file"
import type { Results } from "../lib/data/results"
import { variables } from "../lib/environment"
import * as musc from "../lib/index"
import { parseConfig } from "../lib/model/config"
import { planNeed, planStages } from "../lib/model/memory"
import { parameterCount } from "../lib/model/weights"
import packageJson from "../package.json"
import type { Results as Bench } from "./bench/bench"

const folders = [".", ".github", "data/docs", "data/results", "lib", "notebooks", "tests/bench"].filter(existsSync)
const pages = folders.flatMap((folder) =>
  readdirSync(folder)
    .filter((file) => (folder === "data/results" ? file === "README.md" : file.endsWith(".md")))
    .map((file) => join(folder, file)),
)
const textOf = (page: string) => readFileSync(page, "utf8")
const readme = textOf("README.md")
const blocks = (page: string, language: string) =>
  [...textOf(page).matchAll(/^```(\w*)\n([\s\S]*?)^```/gm)].filter((b) => b[1] === language).map((b) => b[2]!)

it("the README is at most 120 lines", () => {
  expect(readme.trimEnd().split("\n").length).toBeLessThanOrEqual(120)
})

describe("the code of the docs", () => {
  const here = process.cwd()
  afterEach(() => process.chdir(here))
  const runnable = pages.flatMap((page) => blocks(page, "ts").map((code, i) => ({ page, code, i })))

  it.each(runnable)("runs: $page, block $i", async ({ code }) => {
    const body = code.replace(/^import \{([^}]*)\} from "musc"$/gm, "const {$1} = musc")
    const script = `async (musc: any, console: any, process: any) => {\n${body}\n}`
    const { outputText } = ts.transpileModule(script, { compilerOptions: { target: ts.ScriptTarget.ES2022 } })
    const log = vi.fn()
    process.chdir(mkdtempSync(join(tmpdir(), "musc-docs-")))
    // biome-ignore lint/security/noGlobalEval: code of our own pages
    await globalThis.eval(outputText.replace(/;\s*$/, ""))(musc, { log }, process)
    expect(log).toHaveBeenCalled()
  })
})

/** The commands of a page's blocks: what stands behind `musc` or `npm run` up to a comment or the next command. */
function commandsOf(page: string): string[] {
  const lines = blocks(page, "").flatMap((block) => block.replace(/\\\n\s*/g, "").split("\n"))
  return lines
    .flatMap((line) => line.replace(/\s+#.*$|\s{3,}\S.*$/, "").split("&&"))
    .map((line) => line.trim())
    .filter((line) => /^(srun )?npx musc |^npm run /.test(line))
}

/** Checks that a command line names a command, its options, a recipe and settings that there are. */
async function checkCommand(line: string): Promise<void> {
  const words = [...line.matchAll(/"[^"]*"|\S+/g)].map((word) => word[0])
  const [name = "", ...rest] = words.slice(words.indexOf("musc") + 1)
  const command = await commandOf(name, rest)
  const options = new Set(command.options.flatMap(({ long, short }) => [long, short]))
  for (const word of rest) if (/^--?[a-z]/.test(word)) expect([...options, "--help"], line).toContain(word)
  if (name === "run" && !/\.yaml|^-/.test(rest[0] ?? "")) expect(Object.keys(recipes), line).toContain(rest[0])
  const set = rest.filter((_, i) => rest[i - 1] === "--set")
  // Of another model, since the embedded one has fewer choices.
  if (set.length) expect(() => readConfig({ model: "org/name", set }), line).not.toThrow()
}

describe("the commands of the docs", () => {
  it.each(pages)("exist, with their options and settings: %s", async (page) => {
    for (const line of commandsOf(page)) {
      if (line.startsWith("npm run")) expect(Object.keys(packageJson.scripts), line).toContain(line.split(" ")[2])
      else await checkCommand(line)
    }
  })

  const commandFiles = readdirSync("lib/cli").map((file) => file.replace(/\.ts$/, ""))
  const entries = [...textOf("lib/cli/main.ts").matchAll(/\bname: "(\w+)"/g)].map((match) => match[1]!)
  it.each(entries)("exist, with their options and settings, in the help of musc %s", async (name) => {
    expect([...commandFiles, ...stageNames]).toContain(name)
    const command = await commandOf(name, [])
    const texts = [command, ...command.commands].map((one) => {
      let text = ""
      one.configureOutput({ writeOut: (part) => (text += part) }).outputHelp()
      return text
    })
    const lines = texts.flatMap((text) => [...text.matchAll(/^ {2}(?:\S+ \| |\w+=\S+ )?(musc .*)$/gm)])
    for (const line of lines.flatMap((match) => match[1]!.replace(/\s{2,}\S.*$/, "").split(" && ")))
      await checkCommand(line)
  })
})

const stageNames = ["decompose", "corrupt", "recombine", "respond", "weigh"]

/** A command as the command line knows it, or its subcommand. */
async function commandOf(name: string, rest: readonly string[]): Promise<Command> {
  const program = new Command()
  const module = await import(`../lib/cli/${stageNames.includes(name) ? "stages" : name}.ts`)
  const entry = stageNames.includes(name) ? module[`${name}Command`] : module
  entry.register(program)
  const command = program.commands.find((one) => one.name() === name)!
  return command.commands.find((one) => one.name() === rest[0]) ?? command
}

it("every public name has a doc comment", () => {
  const statementsOf = (file: string) =>
    ts.createSourceFile(file, textOf(file), ts.ScriptTarget.ES2022, true).statements
  const undocumented: string[] = []
  for (const entry of statementsOf("lib/index.ts")) {
    if (!ts.isExportDeclaration(entry) || !entry.exportClause || !ts.isNamedExports(entry.exportClause)) continue
    const file = join("lib", `${(entry.moduleSpecifier as ts.StringLiteral).text}.ts`)
    const declared = new Map<string, ts.Statement>()
    for (const statement of statementsOf(file)) {
      if (ts.isVariableStatement(statement))
        for (const { name } of statement.declarationList.declarations) declared.set(name.getText(), statement)
      else if ("name" in statement && statement.name) declared.set((statement.name as ts.Identifier).text, statement)
    }
    for (const { propertyName, name } of entry.exportClause.elements) {
      const own = (propertyName ?? name).getText()
      const statement = declared.get(own) // undefined for what the file itself takes from another one
      if (statement && !ts.getJSDocCommentsAndTags(statement).length) undocumented.push(`${file}: ${own}`)
    }
  }
  expect(undocumented).toEqual([])
})

it.each(pages)("links of %s lead to files of the project", (page) => {
  const links = [...textOf(page).matchAll(/\]\(([^)#\s]+)/g)].map((link) => link[1]!)
  for (const link of links.filter((one) => !/^\w+:/.test(one))) {
    expect(existsSync(join(dirname(page), link)), `${page}: ${link}`).toBe(true)
  }
})

/** Names of the tests of a file, as written: those of `it` and `it.each`. */
function testsIn(file: string): string[] {
  const names: string[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && /^(it|test)\b/.test(node.expression.getText())) {
      const [name] = node.arguments
      if (name && ts.isStringLiteralLike(name)) names.push(name.text)
    }
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(file, textOf(file), ts.ScriptTarget.ES2022, true))
  return names
}

it("the table of faults names tests that there are", () => {
  const page = "data/results/faults.md"
  const rows = textOf(page)
    .split("\n")
    .filter((line) => /^\| (?!fault \|)/.test(line))
  expect(rows.length).toBeGreaterThan(45)
  for (const row of rows) {
    const [, link, name] = /^\| [^|]+ \| \[[^\]]+\]\(([^)]+)\): `([^`]+)` \| [^|]+ \|$/.exec(row) ?? []
    expect(link, row).toBeDefined()
    expect(testsIn(join(dirname(page), link!)), row).toContain(name)
  }
})

it("the page on environment variables names every one that the library reads", () => {
  const page = textOf("data/docs/environment.md")
  const kernels = readdirSync("lib/native/kernels").flatMap((file) =>
    [...textOf(join("lib/native/kernels", file)).matchAll(/getenv\("(\w+)/g)].map((match) => match[1]!),
  )
  expect(kernels).toContain("MUSC_KERNELS")
  const usual = ["PATH", "JUPYTER_PATH", "npm_command"]
  const read = [...Object.keys(variables), ...kernels].filter((name) => !usual.includes(name))
  expect(read.filter((name) => !page.includes(`\`${name}\``))).toEqual([])
})

it("the log has its entries newest first, each with a date and a title", () => {
  const [, entries = ""] = textOf("data/log.md").split(/^# Entries$/m)
  const titles = [...entries.matchAll(/^## (.*)$/gm)].map((match) => match[1]!)
  const dates = titles.map((title) => title.match(/^\d{4}-\d\d-\d\d(?= \S)/)?.[0] ?? `no date: ${title}`)
  expect(dates.length).toBeGreaterThan(0)
  expect(dates).toEqual([...dates].sort().reverse())
})

describe("the numbers of the docs", () => {
  it("of the README's tables are those of the results that they link", () => {
    const tables = [...readme.matchAll(/^\| method \(\[.*\]\((.*)\.md\)\) \|(.*)\|$/gm)]
    expect(tables.length).toBe(2)
    const percent = (x: number) => (100 * x).toFixed(1)
    for (const [, file, header] of tables) {
      const { methods } = readJsonFile(`${file}.json`) as unknown as Results
      const columns = [...header!.matchAll(/([CI]SR), temperature ([\d.]+)/g)]
      for (const [method, scores] of Object.entries(methods)) {
        const cells = columns.map(([, figure, temperature]) => {
          const score = scores[`T${temperature}`]!
          const [value, ends] = figure === "CSR" ? [score.csr, score.csr_interval] : [score.isr, score.isr_interval]
          return `${percent(value!)} [${ends.map((end) => percent(end!)).join(", ")}]`
        })
        expect(readme).toContain(`| ${method} | ${cells.join(" | ")} |`)
      }
    }
  })

  it("of the chat model come from the command that the README gives", () => {
    const { command } = readJsonFile("data/results/checkable-smollm2.json")
    const oneLine = readme.replace(/\\\n\s*/g, "").replaceAll("--model HuggingFaceTB/", "--model ")
    expect(oneLine).toContain(command)
  })

  it("of speed are those of the committed results", () => {
    const page = textOf("data/results/README.md")
    for (const name of ["world", "gemma-3-270m"]) {
      const { rows, commit } = readJsonFile(`data/results/bench-${name}.json`) as unknown as Bench
      expect(page).toContain(`commit ${commit} | musc | peer | ratio | memory |`)
      for (const { work, ours, peer, ratio, unit, peakMiB, peerPeakMiB } of rows.filter(({ unit }) => unit !== "%"))
        if (peer && ratio && !/against without|against f32/.test(work))
          expect(page).toContain(
            `| ${work} | ${ours} ${unit} | ${peer} | ${ratio.toFixed(2)} | ${peakMiB} / ${peerPeakMiB} |`,
          )
    }
  })

  it("of memory are those of the plan", () => {
    const qwen = { model_type: "qwen2", rms_norm_eps: 1e-6, rope_theta: 1e6, eos_token_id: 151645 }
    const sizes = {
      "Qwen2.5 0.5B": [896, 4864, 24, 14, 2, 151936, true],
      "Qwen2.5 1.5B": [1536, 8960, 28, 12, 2, 151936, true],
      "Qwen2.5 7B": [3584, 18944, 28, 28, 4, 152064, false],
    } as const // as in their config.json
    const device = {
      backend: "tensorflow",
      gpu: false,
      kernels: "vector",
      products: "own",
      graphs: true,
      precision: "f32",
    } as const
    const work = { rank: 8, length: 1024, batch: 1, tokenizerBytes: 7_031_645 }
    for (const [name, [dim, ffn, layers, heads, kv, vocabulary, tied]] of Object.entries(sizes)) {
      const config = parseConfig({
        ...qwen,
        ...{ hidden_size: dim, intermediate_size: ffn, num_hidden_layers: layers, num_attention_heads: heads },
        ...{ num_key_value_heads: kv, vocab_size: vocabulary, tie_word_embeddings: tied },
      })
      const needs = planStages.map((stage) => planNeed(config, stage, work, { ...device, threads: 2 }).host / 2 ** 30)
      const cells = [`${(parameterCount(config) / 1e9).toFixed(2)} G`, ...needs.map((need) => need.toFixed(1))]
      expect(readme).toContain(`| ${name} | ${cells.join(" | ")} |`)
    }
  })
})
