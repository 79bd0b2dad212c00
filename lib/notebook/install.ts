import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { ChildError, run } from "../device/child"
import { notInstalled, packageFolder } from "../device/packages"
import { InputError } from "../errors"

/** Name of the kernel in Jupyter and in the metadata of the notebooks. */
export const kernelName = "musc"

/** The kernel as Jupyter wants it described: absolute paths, since VS Code and Lab start it with paths of their own. */
export const kernelSpec = () => ({
  argv: [process.execPath, resolve(__dirname, "kernel.cjs"), "{connection_file}"],
  display_name: "MuSC (TypeScript)",
  language: "typescript",
  interrupt_mode: "signal",
  env: { TF_CPP_MIN_LOG_LEVEL: "2", TF_FORCE_GPU_ALLOW_GROWTH: "true" },
})

/** What must be there for notebooks to run by command. */
const jupyterHelp =
  "python3 -m venv .venv && . .venv/bin/activate && pip install jupyterlab\n(to execute them alone: pip install nbclient)"

/**
 * Runs Jupyter of the active environment. The PATH decides, as it does in a shell. `env`: other variables than its own.
 * @throws InputError saying what to install
 */
export async function jupyter(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<string> {
  try {
    return await run("jupyter", args, { env })
  } catch (error) {
    const missing = error instanceof ChildError && error.missing
    const unknown = error instanceof Error && /Jupyter command .* not found/.test(error.message)
    if (!missing && !unknown) throw error
    const got = missing ? "none on the PATH" : `one without \`jupyter ${args[0]}\``
    throw new InputError(`notebooks need an active Jupyter, got ${got}; install it and try again:\n${jupyterHelp}`)
  }
}

/**
 * Tells the active Jupyter of the kernel: in its own environment, or, if `forUser` or where that is not ours to write,
 * among the user's kernels, which every program finds. Returns the folder of the kernel's description.
 * @throws InputError without Jupyter or tslab
 */
export async function installKernel(forUser = false): Promise<string> {
  if (!packageFolder("tslab")) throw new InputError(`the kernel needs tslab: ${notInstalled("tslab")}`)
  const folder = mkdtempSync(join(tmpdir(), "musc-kernel-"))
  try {
    writeFileSync(join(folder, "kernel.json"), `${JSON.stringify(kernelSpec(), null, 2)}\n`)
    const install = (place: string) =>
      jupyter(["kernelspec", "install", folder, "--name", kernelName, "--replace", place])
    await install(forUser ? "--user" : "--sys-prefix").catch((error) => {
      if (!forUser && /Permission|denied/i.test(`${error}`)) return install("--user")
      throw error
    })
  } finally {
    rmSync(folder, { recursive: true })
  }
  const { kernelspecs } = JSON.parse(await jupyter(["kernelspec", "list", "--json"]))
  return kernelspecs[kernelName].resource_dir
}
