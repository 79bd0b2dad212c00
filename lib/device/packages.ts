import { readFileSync } from "node:fs"
import path from "node:path"

/** Folder of an installed package, or undefined. */
export function packageFolder(name: string): string | undefined {
  try {
    return path.dirname(require.resolve(`${name}/package.json`))
  } catch {
    return undefined
  }
}

/**
 * What to say where packages are missing that only some parts of musc need (its optional peer dependencies): a project
 * that wants those parts installs them itself, in the version that musc was tested with.
 */
export function notInstalled(...names: readonly string[]): string {
  const { peerDependencies } = JSON.parse(readFileSync(path.join(__dirname, "../../package.json"), "utf8"))
  const wanted = names.map((name) => `${name}@${peerDependencies[name]}`).join(" ")
  const what = names.length > 1 ? `packages ${names.join(" and ")} are` : `package ${names[0]} is`
  // The GPU package's install script asks for a binary that is no longer there; `musc native` builds it instead.
  const flag = names.includes("@tensorflow/tfjs-node-gpu") ? "--ignore-scripts " : ""
  return `${what} not installed; run \`npm install ${flag}${wanted}\``
}
