import { spawnSync } from "node:child_process"
import path from "node:path"
import { describe, expect, it } from "vitest"
import { version } from "../../package.json"

const root = path.join(__dirname, "../..")
const musc = (...args: string[]) =>
  spawnSync(process.execPath, [path.join(root, "lib/cli/bin.cjs"), ...args], { encoding: "utf8" })

describe("the command line", () => {
  it("tells its version, also through npx and without a network", () => {
    expect(musc("--version").stdout.trim()).toBe(version)
    const offline = { ...process.env, npm_config_offline: "true" }
    const npx = spawnSync("npx", ["musc", "--version"], { cwd: root, encoding: "utf8", env: offline })
    expect(npx.stdout.trim()).toBe(version)
  })

  it("lists every command and loads the help of one", () => {
    expect(musc("--help").stdout).toMatch(/native .*\n[\s\S]*doctor /)
    expect(musc("help", "native").stdout).toContain("--wheel <path>")
    expect(musc("native", "--help").stdout).toContain("Examples:")
  })

  it("answers an unknown command with the nearest one and exit code 1", () => {
    const { status, stderr } = musc("docter")
    expect(status).toBe(1)
    expect(stderr).toContain("Did you mean doctor?")
  })

  it("prints an error of ours as one line without a stack", () => {
    const { status, stderr } = musc("native", "--force", "--wheel", "no-such.whl")
    expect(status).toBe(1)
    expect(stderr.trim()).toBe(
      'BackendError: native: --wheel must be a file or folder, got "no-such.whl"; correct the path',
    )
  })
})
