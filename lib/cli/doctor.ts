import type { Command } from "commander"
import { examine, formatFacts } from "../native/doctor"

export function register(program: Command): void {
  program
    .command("doctor")
    .description(
      "Show what this machine can run: Node, memory, each backend with its matmul speed or the reason why it cannot run, " +
        "missing CUDA libraries, Python packages. Takes a few seconds.",
    )
    .option("--json", "print the facts as JSON")
    .addHelpText(
      "after",
      `
Examples:
  musc doctor
  MUSC_BACKEND=wasm musc doctor      the same with another backend
  musc doctor --json > machine.json

Lines marked MISSING cost speed and name the remedy. Lines marked - are optional.`,
    )
    .action(async ({ json }: { json?: boolean }) => {
      const facts = await examine()
      console.log(json ? JSON.stringify(facts, null, 2) : formatFacts(facts))
    })
}
