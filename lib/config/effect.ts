import { type PreferenceLoss, preferenceLosses } from "../train/losses"
import { type ConfigKey, configDefaults, type RunConfig } from "./config"

/** Settings of losses that no loss of the methods reads, a line each. */
export function withoutEffect(config: RunConfig): string[] {
  const tdpo = (["tdpo1", "tdpo2"] as const).filter((method) => config.methods.includes(method))
  const losses: readonly PreferenceLoss[] = [config.loss, ...tdpo]
  const readers = {
    beta: preferenceLosses.filter((loss) => loss !== "simpo"),
    labelSmoothing: ["dpo", "tdpo1", "tdpo2", "simpo"],
    simpoBeta: ["simpo"],
    simpoMargin: ["simpo"],
    tdpoAlpha: ["tdpo2"],
  } as const satisfies Partial<Record<ConfigKey, readonly PreferenceLoss[]>>
  return (Object.keys(readers) as (keyof typeof readers)[]).flatMap((key) => {
    const own: readonly PreferenceLoss[] = readers[key]
    if (config[key] === configDefaults[key] || losses.some((loss) => own.includes(loss))) return []
    const rule = `must be left at ${configDefaults[key]}, as only the loss ${own.join(", ")} reads it`
    return [`${key}: ${rule}, got ${config[key]} with the loss ${losses.join(", ")}; leave it out, or change loss`]
  })
}
