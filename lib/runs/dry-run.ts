import type { InstructionRow, TokenSignals } from "../data/schema"
import type { GenerateRequest, ScoreRequest, Scorer } from "../engine/engine"
import { decompose } from "../musc/decompose"
import type { Outcome } from "../musc/row"
import { selfInstruct } from "../musc/source"
import { configDefaults, configKeys, type RunConfig } from "./config"
import { aligned } from "./results"
import { HELD_OUT, sourceRows, stageOptions } from "./stages"

/** An engine that writes nothing and keeps what it was asked. */
export interface Recorder extends Scorer {
  readonly requests: GenerateRequest[]
  readonly scored: ScoreRequest[]
}

export function recorder(): Recorder {
  const requests: GenerateRequest[] = []
  const scored: ScoreRequest[] = []
  const list: number[] = []
  const nothing: TokenSignals = {
    tokens: [],
    ...{ logprob: list, logprob_noised: list, logprob_empty: list },
    ...{ entropy: list, entropy_noised: list, kl: list, kl_reverse: list },
  }
  return {
    name: "nothing",
    concurrency: 64,
    requests,
    scored,
    async generate(request) {
      requests.push(request)
      return { text: "", tokens: 0, finish: "stop" }
    },
    async score(request) {
      scored.push(request)
      return request.responses.map(() => nothing)
    },
  }
}

/** A request as text for people. */
export function shown({ messages, temperature, maxTokens }: GenerateRequest): string {
  const head = `temperature ${temperature}, at most ${maxTokens} tokens`
  return [`--- ${head}`, ...messages.map(({ role, content }) => `[${role}] ${content}`), "---"].join("\n")
}

/** What a run with these settings would do: settings changed, calls of each stage, the first prompt. Calls nothing. */
export async function planOf(config: RunConfig): Promise<string> {
  const options = stageOptions(config, config.seed)
  const engine = recorder()
  const written = Math.ceil(config.instructions / (1 - Math.min(0.9, config.holdout)))
  let [kept, held] = [0, 0]
  if (config.seeds === "self-instruct") {
    await selfInstruct(engine, 0, options.source)
    kept = config.instructions
    held = written - kept
  } else {
    let first: InstructionRow | undefined
    for await (const row of sourceRows(config, config.seed) as AsyncIterable<Outcome<InstructionRow>>) {
      if (!row.failure) {
        first ??= row
        kept++
      } else if (row.failure.reason === HELD_OUT) held++
    }
    if (config.seeds === "world") held = config.evalInstructions
    if (first) await decompose(engine, first, options.decompose)
  }
  const evaluated = Math.min(held, config.evalInstructions)
  const steps = Math.ceil(kept / config.batchSize) * config.epochs
  const trained = config.methods.filter((method) => method !== "base").length
  const answers = evaluated * config.methods.length * config.evalTemperatures.length
  const stages = [
    ...(config.seeds === "self-instruct" ? [["self-instruct", `${written}`, "answers"]] : []),
    ["decompose", `${kept + (config.seeds === "world" ? 0 : evaluated)}`, "answers"],
    ["corrupt", `${config.corruptAttempts}`, "answers for each constraint that is negated or substituted"],
    ["recombine", `${2 * kept}`, "answers"],
    ["respond", `${2 * kept}`, "answers"],
    ["weigh", `${kept}`, "pairs, each scored under 3 prompts"],
    ["train", `${trained * Math.ceil(steps)}`, `steps of ${config.batchSize} pairs, for ${trained} methods together`],
    ["evaluate", `${answers}`, `answers to ${evaluated} held-out instructions`],
  ]
  const changed = configKeys.filter((key) => JSON.stringify(config[key]) !== JSON.stringify(configDefaults[key]))
  const repeats = config.repeat > 1 ? `, ${config.repeat} times` : ""
  return [
    `settings that differ from the defaults:\n${changed.map((key) => `  ${key}: ${JSON.stringify(config[key])}`).join("\n") || "  none"}`,
    `at most${repeats}:\n${aligned([["stage", "number", "of"], ...stages])}`,
    `first prompt:\n${engine.requests[0] ? shown(engine.requests[0]) : "(no instruction)"}`,
  ].join("\n\n")
}
