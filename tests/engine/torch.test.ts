import { existsSync, mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { newLines, runJob, wordsOf } from "../../lib/engine/torch"

const folder = () => mkdtempSync(join(tmpdir(), "musc-job-"))
const node = (code: string) => `${JSON.stringify(process.execPath)} -e ${JSON.stringify(code)} --`

describe("a command line", () => {
  it("is split as a shell would, without one", () => {
    expect(wordsOf(`torchrun  --nproc_per_node 2`)).toEqual(["torchrun", "--nproc_per_node", "2"])
    expect(wordsOf(`a "b c" 'd "e"' f\\ g "\\"h\\""`)).toEqual(["a", "b c", 'd "e"', "f g", '"h"'])
    expect(wordsOf(`--x="1 2"`)).toEqual(["--x=1 2"])
    expect(() => wordsOf(`a "b`)).toThrow(/closed quotes/)
  })
})

describe("a job of Python", () => {
  it("gets script and folder, runs there, and its output is kept", async () => {
    const dir = folder()
    await runJob({
      folder: dir,
      script: "train.py",
      command: node("console.log(process.cwd(), process.argv.slice(1).join())"),
    })
    const log = readFileSync(join(dir, "log.txt"), "utf8")
    expect(log).toContain(dir)
    expect(log).toContain("train.py,.")
    expect(existsSync(join(dir, "train.py"))).toBe(true)
  })

  it("that fails is an error with its last lines", async () => {
    const run = runJob({
      folder: folder(),
      script: "score.py",
      command: node("console.error('no GPU here'); process.exit(4)"),
    })
    await expect(run).rejects.toThrow(/ended with 4; the whole log is .*log\.txt.*no GPU here/s)
  })

  it("whose program is missing names the line that installs it", async () => {
    const run = runJob({ folder: folder(), script: "score.py", command: "no-such-program" })
    await expect(run).rejects.toThrow(
      /no-such-program could not be started: it is not installed; run `npx musc python`/,
    )
  })

  it("for a cluster is written, not started, and says what to run", async () => {
    const dir = folder()
    await expect(runJob({ folder: dir, script: "train.py", command: "job" })).rejects.toThrow(
      `bash ${join(dir, "run.sh")}`,
    )
    expect(readFileSync(join(dir, "run.sh"), "utf8")).toMatch(
      /^#!.*\n.*exec \$\{LAUNCH:-torchrun --standalone --nproc_per_node auto\} train\.py \.\n$/s,
    )
    expect(statSync(join(dir, "run.sh")).mode & 0o100).toBe(0o100)
  })

  it("is told of a stop and waited for, so that it can write its state", async () => {
    const dir = folder()
    const code = `process.on("SIGTERM", () => { fs.writeFileSync("state", "kept"); process.exit(143) }); fs.writeFileSync("up", ""); setInterval(() => {}, 1000)`
    const stop = new AbortController()
    const onPoll = () => {
      if (existsSync(join(dir, "up"))) stop.abort()
    }
    const run = runJob({ folder: dir, script: "train.py", command: node(code), signal: stop.signal, onPoll })
    await expect(run).rejects.toThrow(/stopped; run the same command again/)
    expect(readFileSync(join(dir, "state"), "utf8")).toBe("kept")
  })
})

describe("lines that another process appends", () => {
  it("are read once each, whole ones alone", () => {
    const file = join(folder(), "lines")
    writeFileSync(file, "a\nb\nc")
    const first = newLines(file, 0)
    expect(first.lines).toEqual(["a", "b"])
    writeFileSync(file, "a\nb\ncd\n")
    expect(newLines(file, first.end).lines).toEqual(["cd"])
  })
})
