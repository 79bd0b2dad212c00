import type { Command } from "commander"
import { examine, formatFacts } from "../native/doctor"

export function register(program: Command): void {
  program
    .command("doctor")
    .description(
      "Show what this machine offers: Node, memory, every backend with its matmul speed or the reason why it cannot run, " +
        "CUDA libraries that are missing, Python packages for comparisons. Takes a few seconds.",
    )
    .option("--json", "print the facts as JSON")
    .addHelpText(
      "after",
      `
Examples:
  musc doctor
  MUSC_BACKEND=wasm musc doctor      as above, with the choice that the variable forces
  musc doctor --json > machine.json

A line marked MISSING costs speed and names its remedy; one marked - is absent without harm.`,
    )
    .action(async ({ json }: { json?: boolean }) => {
      const facts = await examine()
      console.log(json ? JSON.stringify(facts, null, 2) : formatFacts(facts))
    })
}
