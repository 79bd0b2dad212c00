import { statSync, utimesSync } from "node:fs"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { rng } from "../../lib/rng"
import { type Kernel, startKernel } from "../support/kernel"

const { projectOf, shown } = require("../../lib/notebook/kernel.cjs") as {
  projectOf(folder: string): string
  shown(error: unknown): unknown
}

const wait = (ms: number) => new Promise((done) => setTimeout(done, ms))

describe("errors in cells", () => {
  it("show the message first and at most three frames outside Node and tslab", () => {
    const lines = `${shown(new TypeError("must be a number"))}`.split("\n")
    expect(lines[0]).toBe("TypeError: must be a number")
    expect(lines.length).toBeGreaterThan(1)
    expect(lines.length).toBeLessThanOrEqual(4)
    expect(lines.slice(1).join()).not.toMatch(/node:|tslab/)
  })

  it("name their cause, and show nothing but the message where the error is our own", () => {
    class MuscError extends Error {}
    class InputError extends MuscError {}
    expect(shown(new InputError("rows.jsonl, line 3: must be JSON"))).toBe("Error: rows.jsonl, line 3: must be JSON")
    expect(shown(new Error("outer", { cause: new Error("inner") }))).toMatch(
      /^Error: outer[\s\S]*caused by Error: inner$/,
    )
    expect(shown("text")).toBe("text")
  })
})

describe("the kernel", () => {
  let kernel: Kernel
  beforeAll(async () => {
    kernel = await startKernel()
  })
  afterAll(() => kernel?.stop())

  it("starts in the project, whatever folder it was started from", async () => {
    const { stdout } = await kernel.run("console.log(process.cwd())")
    expect(stdout.trim()).toBe(projectOf(__dirname))
  })

  it("imports lib by path, names of packages as packages, and finds shorthand names of earlier cells", async () => {
    const first = await kernel.run(
      'import { rng } from "./lib/rng"\nimport { openaiGenerator } from "./lib/engine/openai"\nlet n = 3',
    )
    expect(first).toMatchObject({ stderr: "", reply: { status: "ok" } })
    const second = await kernel.run(
      "const made = { n, kind: typeof openaiGenerator, draw: rng(1, 'a').int(n) }\nmade.n",
    )
    expect(second).toMatchObject({ stdout: "3\n", stderr: "", reply: { status: "ok" } })
    const third = await kernel.run("const { n: again, kind = 'none' } = made\nconsole.log(again, kind)")
    expect(third).toMatchObject({ stdout: "3 function\n", stderr: "", reply: { status: "ok" } })
  })

  it("imports musc and musc/notebook as the sources of this project, types included, built or not", async () => {
    const { stdout, stderr, reply } = await kernel.run(
      `import { InputError, rng } from "musc"
import { keyNumbers } from "musc/notebook"
import { InputError as same } from "./lib/errors"
const { hasPassed } = await import("musc")
console.log(same === InputError, typeof rng, typeof keyNumbers, typeof hasPassed)`,
    )
    expect({ stdout, stderr, status: reply.status }).toEqual({
      stdout: "true function function function\n",
      stderr: "",
      status: "ok",
    })
    const wrong = await kernel.run('import { noSuchName } from "musc"\nnoSuchName')
    expect(wrong.stderr).toContain("has no exported member 'noSuchName'")
    await wait(250)
  })

  it("checks cells by strict rules, and does not run one with a type error", async () => {
    const { stderr, stdout, reply } = await kernel.run("const text: string = null\nconsole.log('ran')")
    expect(stderr).toContain("Type 'null' is not assignable to type 'string'")
    expect(stdout).toBe("")
    expect(reply.status).toBe("error")
    await wait(250) // tslab passes over what comes right after an error
  })

  // `npm install` and `npx musc native` do so. Files are looked at every two seconds.
  it("goes on where a package's description is written anew", async () => {
    const description = require.resolve("zod/package.json")
    const { atime, mtime } = statSync(description)
    utimesSync(description, new Date(), new Date())
    await wait(6000)
    utimesSync(description, atime, mtime)
    for (const n of [1, 2])
      expect(await kernel.run(`console.log(${n})`)).toMatchObject({ stdout: `${n}\n`, reply: { status: "ok" } })
  })

  it("names the error in its reply", async () => {
    const { stderr, reply } = await kernel.run("throw new RangeError('too large')")
    expect(reply).toMatchObject({ status: "error", ename: "RangeError", evalue: "too large" })
    expect(stderr).toMatch(/^RangeError: too large\n/)
    await wait(250)
  })

  it("loses none of 20,000 lines printed in one cell, nor of 2,000 displays", async () => {
    const { stdout } = await kernel.run("for (let i = 0; i < 20000; i++) console.log(i)")
    expect(stdout).toBe(Array.from({ length: 20_000 }, (_, i) => `${i}\n`).join(""))
    const code =
      'import { display } from "./lib/notebook/display"\nfor (let i = 0; i < 2000; i++) display({ "text/plain": String(i) })'
    const { displays, reply } = await kernel.run(code)
    expect(reply.status).toBe("ok")
    expect(displays.map((data) => data["text/plain"])).toEqual(Array.from({ length: 2000 }, (_, i) => `${i}`))
  })

  it("executes nothing that stands in a record", async () => {
    const code =
      'import { show } from "./lib/notebook/show"\nawait show({ id: "1", instruction: "<script>alert(1)</script>" })'
    const { displays } = await kernel.run(code)
    expect(displays).toHaveLength(1)
    expect(displays[0]!["text/html"]).toContain("&lt;script&gt;alert(1)&lt;/script&gt;")
    expect(displays[0]!["text/html"]).not.toMatch(/<script/i)
  })

  it("stops work that can stop at 20 random moments, keeps what was done, and lives", async () => {
    const define = `import { interruptible } from "./lib/notebook/interrupt"
const done: number[] = []
const work = (signal: AbortSignal) => new Promise<void>((end) => {
  const step = () => { done.push(done.length); if (signal.aborted || done.length > 1e7) end(); else setImmediate(step) }
  step()
})`
    expect((await kernel.run(define)).stderr).toBe("")
    const random = rng(5, "interrupt")
    let steps = 0
    for (let i = 0; i < 20; i++) {
      const running = kernel.run("await interruptible(work)\nconsole.log(done.length)")
      await wait(50 + random.int(200))
      // One that comes before the cell has arrived stops nothing, as in any kernel.
      const ended = running.then(() => true)
      do kernel.interrupt()
      while (!(await Promise.race([ended, wait(3000)])))
      const { stdout, stderr, reply } = await running
      if (stderr) {
        // It came before the work began: the cell ends as any other does, and the next one goes on.
        expect(stderr).toMatch(/[Ii]nterrupted/)
        await wait(250)
        continue
      }
      expect(reply.status).toBe("ok")
      expect(Number(stdout)).toBeGreaterThan(steps)
      steps = Number(stdout)
    }
    expect((await kernel.run("console.log(done.every((value, i) => value === i))")).stdout).toBe("true\n")
  }, 300_000)

  /** Interrupts once a display says so. */
  const interruptAt = (text: RegExp) => {
    let done = false
    return (data: Record<string, unknown>) => {
      if (done || !text.test(`${data["text/plain"]}`)) return
      done = true
      kernel.interrupt()
    }
  }

  it("shows how far a stage is, stops it, and lets nothing go on behind", async () => {
    const define = `import { each } from "./lib/notebook/progress"
let begun = 0
const double = async (row: number) => {
  begun++
  await new Promise((done) => setTimeout(done, 20))
  return 2 * row
}
const rows = Array.from({ length: 8000 }, (_, i) => i)`
    expect((await kernel.run(define)).stderr).toBe("")
    const { stderr, displays } = await kernel.run(
      'await each("double", rows, { concurrency: 4 }, double)',
      interruptAt(/: \d\d+ of 8000 rows/),
    )
    const [, done] = /^StoppedError: double: stopped after (\d+) of 8000 rows; run the cell again\n/.exec(stderr) ?? []
    expect(Number(done)).toBeGreaterThan(0)
    const lines = displays.map((data) => `${data["text/plain"]}`)
    expect(lines.at(-2)).toMatch(/^double: \d+ of 8000 rows, [\d.]+ rows\/s, .* left$/)
    expect(displays.at(-1)!["text/html"]).toContain(`<progress value="${done}" max="8000"`)
    await wait(250)
    const { stdout } = await kernel.run("console.log(begun)")
    expect(Number(stdout)).toBeLessThanOrEqual(Number(done) + 4)
    await wait(250)
    expect((await kernel.run("console.log(begun)")).stdout).toBe(stdout)
    const again = await kernel.run('const few = await each("double", [1, 2], { concurrency: 4 }, double)\nfew.join()')
    expect(again).toMatchObject({ stdout: "2,4\n", stderr: "" })
    expect(again.displays.at(-1)!["text/plain"]).toMatch(/^double: 2 of 2 rows/)
  }, 240_000)

  it("stops the making of pairs within a step, after which the model answers again", async () => {
    const define = `import { makePairs, openLocal, parseConfig, recipeOf, useBackend, worldInstructions } from "./lib/index"
import { cell, watch } from "./lib/notebook/progress"
import { stageOptions } from "./lib/runs/stages"
await useBackend()
const engine = openLocal("data/models/world").engine(null, cell)
const options = stageOptions(parseConfig(recipeOf("smoke").config), 1)
const asked = worldInstructions({ n: 2000, seed: 1, split: "train", constraints: [3, 5] })`
    expect((await kernel.run(define)).stderr).toBe("")
    const { stderr, displays } = await kernel.run(
      'await watch("pairs", makePairs(engine, asked, options), asked.length)',
      interruptAt(/ \d+ tokens\/s/),
    )
    expect(stderr).toMatch(/^StoppedError: pairs: stopped after \d+ of 2000 rows; run the cell again\n/)
    expect(`${displays.at(-1)!["text/plain"]}`).toMatch(/\d+ tokens\/s/)
    await wait(250)
    const some = await kernel.run(
      'const some = await watch("pairs", makePairs(engine, asked.slice(0, 8), options), 8)\nsome.length',
    )
    expect(some).toMatchObject({ stdout: "8\n", stderr: "" })
  }, 240_000)

  it("gives up a cell that cannot stop by itself", async () => {
    const running = kernel.run("await new Promise(() => {})")
    await wait(500)
    kernel.interrupt()
    expect((await running).reply).toMatchObject({ status: "error", evalue: "Interrupted asynchronously" })
    await wait(250)
    expect((await kernel.run("console.log('alive')")).stdout).toBe("alive\n")
  })
})
