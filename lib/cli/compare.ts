import type { Command } from "commander"
import { compareFolders } from "../runs/compare"
import { countOption } from "./support"

export function register(program: Command): void {
  program
    .command("compare")
    .description(
      "Compare two result folders of `musc benchmark` on the same benchmark: the difference in every figure over the items " +
        "that both have, with paired 95 % bootstrap intervals.",
    )
    .argument("<a>", "result folder")
    .argument("<b>", "result folder; differences are b minus a")
    .option("--samples <n>", "bootstrap resamples (default: those of a)", countOption)
    .option("--json", "print the comparison as JSON")
    .addHelpText("after", "\nExample:\n  musc compare runs/eval/world/world runs/eval/world/musc")
    .action(async (a: string, b: string, { samples, json }: { samples?: number; json?: boolean }) => {
      const { comparison, table } = await compareFolders(a, b, samples)
      console.log(json ? JSON.stringify(comparison, null, 2) : table)
    })
}
