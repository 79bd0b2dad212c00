import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { basename, join } from "node:path"
import { publint } from "publint"
import { afterAll, expect, it } from "vitest"
import { kernelFiles } from "../lib/device/kernel-set"
import * as library from "../lib/index"
import * as notebook from "../lib/notebook/index"
import packageJson from "../package.json"

const root = join(__dirname, "..")
const caches = join(root, "node_modules", ".cache")
mkdirSync(caches, { recursive: true })
/** Inside the project, so that the package finds what it depends on. */
const scratch = mkdtempSync(join(caches, "pack-"))
afterAll(() => rmSync(scratch, { recursive: true }))

it("npm run pack makes a package that publint has nothing against, with all public names, commands and models", async () => {
  const run = (command: string, args: string[], cwd: string) =>
    execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })
  run("npm", ["run", "pack", "--", "--pack-destination", scratch], root)
  const [tarball] = readdirSync(scratch)
  run("tar", ["xzf", tarball!], scratch)
  const folder = join(scratch, "package")

  const { messages } = await publint({ pkgDir: folder, pack: false })
  expect(messages).toEqual([])

  // Kernels are compiled on the user's machine.
  const sources = kernelFiles.map((file) => basename(file)).sort()
  expect(readdirSync(join(folder, "lib", "native", "kernels")).sort()).toEqual(sources)

  const script = "console.log(JSON.stringify(Object.keys(require(process.argv[1])).sort()))"
  for (const [entry, exported] of [
    ["index", library],
    ["notebook/index", notebook],
  ] as const) {
    const file = join(folder, "dist", entry)
    const names: string[] = JSON.parse(run(process.execPath, ["-e", script, `${file}.js`], scratch))
    expect(names).toEqual(Object.keys(exported).sort())

    const imported = `import * as musc from ${JSON.stringify(`${file}.mjs`)}; console.log(JSON.stringify(Object.keys(musc).sort()))`
    expect(JSON.parse(run(process.execPath, ["--input-type=module", "-e", imported], scratch))).toEqual(names)
  }

  const bin = join(folder, "lib", "cli", "bin.cjs")
  const shown = run(process.execPath, [bin, "run", "smoke", "--dry-run"], scratch)
  expect(shown).toMatch(/decompose[\s\S]*recombine/)
}, 240_000)

it("packages that a library user does not need are optional, of the version that a checkout has", () => {
  const { dependencies, peerDependencies, peerDependenciesMeta, devDependencies } = packageJson
  const notebooks = ["tslab", "danfojs-node", "happy-dom", "@resvg/resvg-js", "webgpu", "@tensorflow/tfjs-node-gpu"]
  for (const name of notebooks) {
    expect(Object.keys(dependencies)).not.toContain(name)
    expect(peerDependenciesMeta[name as keyof typeof peerDependenciesMeta]).toEqual({ optional: true })
    // A checkout has them all, in the version that is asked of others.
    expect(devDependencies[name as keyof typeof devDependencies]).toBe(
      peerDependencies[name as keyof typeof peerDependencies],
    )
  }
})

it("the built gradients are those of all operations that the union package registers", () => {
  const names = `
    const core = require("@tensorflow/tfjs-core")
    require(process.argv[1])
    console.log(JSON.stringify(Object.values(core).filter((name) => typeof name === "string" && core.getGradient(name)).sort()))`
  const registered = (file: string): string[] =>
    JSON.parse(execFileSync(process.execPath, ["-e", names, file], { cwd: root, encoding: "utf8" }))
  const built = registered(join(root, "dist", "device", "tfjs-gradients.cjs"))
  expect(built).toEqual(registered("@tensorflow/tfjs"))
  expect(built).toContain("BatchMatMul")
})
