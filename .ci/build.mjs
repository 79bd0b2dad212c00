// Builds the package: TypeScript to dist, the gradients of tfjs-core as one file, and the ES module beside the CommonJS one.
// Nothing of it runs on a user's machine.
import { execFileSync } from "node:child_process"
import { copyFileSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { buildSync } from "esbuild"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const require = createRequire(import.meta.url)
const dist = join(root, "dist")

rmSync(dist, { recursive: true, force: true })
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], {
  cwd: root,
  stdio: "inherit",
})

// tfjs-core ships its gradients only in a form that Node cannot load; see lib/device/gradients.ts.
buildSync({
  stdin: { contents: 'require("@tensorflow/tfjs-core/dist/register_all_gradients.js")', resolveDir: root },
  outfile: join(dist, "device", "tfjs-gradients.cjs"),
  bundle: true,
  minifySyntax: true,
  minifyWhitespace: true,
  platform: "node",
  format: "cjs",
  external: ["long", "node-fetch", "seedrandom"],
  banner: { js: "/* From @tensorflow/tfjs-core 4.22.0, Copyright Google LLC, Apache-2.0. */" },
})

copyFileSync(join(root, "lib", "notebook", "kernel.cjs"), join(dist, "notebook", "kernel.cjs"))

for (const folder of [dist, join(dist, "notebook")]) {
  const names = Object.keys(require(join(folder, "index.js"))).sort()
  const list = names.map((name) => `  ${name},\n`).join("")
  writeFileSync(join(folder, "index.mjs"), `import musc from "./index.js"\nexport const {\n${list}} = musc\n`)
  writeFileSync(join(folder, "index.d.mts"), 'export * from "./index.js"\n')
}
