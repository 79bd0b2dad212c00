import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { basename, join } from "node:path"
import { publint } from "publint"
import { afterAll, expect, it } from "vitest"
import { fusedSources } from "../lib/device/kernel-set"
import * as library from "../lib/index"

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
  const sources = fusedSources.map((file) => basename(file)).sort()
  expect(readdirSync(join(folder, "lib", "backend", "fused")).sort()).toEqual(sources)

  const script = "console.log(JSON.stringify(Object.keys(require(process.argv[1])).sort()))"
  const names: string[] = JSON.parse(run(process.execPath, ["-e", script, folder], scratch))
  expect(names).toEqual(Object.keys(library).sort())

  const bin = join(folder, "lib", "cli", "bin.cjs")
  const shown = run(process.execPath, [bin, "run", "smoke", "--dry-run"], scratch)
  expect(shown).toMatch(/decompose[\s\S]*recombine/)
}, 240_000)
