import { configDefaults, configKeys, type RunConfig } from "../config/config"
import type { InstructionRow } from "../data/schema"
import type { GenerateRequest } from "../engine/engine"
import { estimateTokens } from "../eval/judge"
import { respondMessages } from "../musc/respond"
import { selfInstruct } from "../musc/source"
import { stages } from "../musc/stages"
import { judgesOf } from "./baselines"
import { collect, first } from "./context"
import { costOf, type Rates } from "./cost"
import { recorder } from "./recorder"
import { aligned } from "./results"
import {
  candidates,
  checkMethods,
  heldOutRows,
  isWorld,
  selfInstructed,
  sourceRows,
  stageOptions,
  worldSource,
} from "./stages"
import { asksVerifier } from "./verified"

/** A request as text for people. */
export function shown({ messages, temperature, maxTokens }: GenerateRequest): string {
  const head = `temperature ${temperature}, at most ${maxTokens} tokens`
  return [`--- ${head}`, ...messages.map(({ role, content }) => `[${role}] ${content}`), "---"].join("\n")
}

/** What a run with these settings would do: settings changed, calls of each stage, the first prompt. Calls nothing. */
export async function planOf(config: RunConfig, rates?: Rates): Promise<string> {
  checkMethods(config)
  const options = stageOptions(config, config.seed)
  const engine = recorder()
  const written = selfInstructed(config)
  const { rows, heldOut } = await drawn(config)
  if (config.instructionsFrom === "self-instruct") await selfInstruct(engine, 0, options.source)
  else if (rows[0] && config.stages === "world")
    await engine.generate({ messages: respondMessages(rows[0].instruction, rows[0].input), ...options.respond })
  else if (rows[0]) await stages.decompose.work(engine, rows[0], options.decompose)
  const instructions = config.instructionsFrom === "self-instruct" ? config.instructions : rows.length
  const evaluated = Math.min(heldOut, config.evalInstructions)
  const steps = Math.ceil(Math.min(instructions, config.pairs || instructions) / config.batchSize) * config.epochs
  const trained = config.methods.filter((method) => method !== "base").length
  const answers = evaluated * config.methods.length * config.evalTemperatures.length
  const calls = [
    ...(config.instructionsFrom === "self-instruct" ? [["self-instruct", `${written}`, "answers"]] : []),
    ...(config.stages === "world"
      ? [["decompose, corrupt, recombine", "0", "answers, as the world does them"]]
      : [
          ["decompose", `${instructions + (isWorld(config) ? 0 : evaluated)}`, "answers"],
          ["corrupt", `${config.corruptAttempts}`, "answers for each constraint that is negated or substituted"],
          ["recombine", `${2 * instructions}`, "answers"],
        ]),
    ["respond", `${2 * instructions}`, "answers"],
    ...(asksVerifier(config)
      ? [["verify", `${2 * instructions}`, "answers, a verdict on each of their constraints"]]
      : []),
    ["weigh", `${instructions}`, "pairs, each scored under 3 prompts"],
    ...baselineCalls(config, instructions),
    ["train", `${trained * Math.ceil(steps)}`, `steps of ${config.batchSize} pairs, for ${trained} methods together`],
    ["evaluate", `${answers}`, `answers to ${evaluated} held-out instructions`],
  ]
  const texts = rows.map(({ instruction, input }) => `${instruction} ${input ?? ""}`)
  const instruction = texts.length
    ? texts.reduce((total, text) => total + estimateTokens(text), 0) / texts.length
    : undefined
  const cost = await costOf(config, recorder, { instructions, evaluated, written, instruction }, rates)
  const changed = configKeys.filter((key) => JSON.stringify(config[key]) !== JSON.stringify(configDefaults[key]))
  const repeats = config.repeat > 1 ? `, ${config.repeat} times` : ""
  const differing = changed.map((key) => `  ${key}: ${JSON.stringify(config[key])}`).join("\n") || "  none"
  const all = config.repeat > 1 ? `all ${config.repeat} repetitions` : "all of it"
  return [
    `settings that differ from the defaults:\n${differing}`,
    `at most${repeats}:\n${aligned([["stage", "number", "of"], ...calls])}`,
    `tokens and hours, ${all}:\n${aligned(cost.rows)}\n${cost.notes.join("\n")}`,
    `first prompt:\n${engine.requests[0] ? shown(engine.requests[0]) : "(no instruction)"}`,
  ].join("\n\n")
}

/** Calls of the baselines' own stages; `n` instructions. */
function baselineCalls(config: RunConfig, n: number): string[][] {
  const judges = judgesOf(config)
  const answers = config.samples * n
  return [
    ...(judges.size ? [["sample", `${answers}`, "answers for the baselines"]] : []),
    ...(judges.has("yesno") ? [["judge", `${answers}`, "answers, a verdict on each of their constraints"]] : []),
    ...(judges.has("points") ? [["judge", `${answers}`, "answers, points for each"]] : []),
    ...(judges.has("external") ? [["judge", `${answers}`, `answers, by ${config.judgeModel}`]] : []),
    ...(config.methods.includes("self-correct") ? [["revise", `${n}`, "answers"]] : []),
  ]
}

/** Rows to train on and the number of those held out, as far as they are known before a model has written any. */
async function drawn(config: RunConfig): Promise<{ rows: InstructionRow[]; heldOut: number }> {
  if (isWorld(config)) return { rows: worldSource(config, config.seed), heldOut: config.evalInstructions }
  if (config.instructionsFrom === "self-instruct")
    return { rows: [], heldOut: selfInstructed(config) - config.instructions }
  const rows = await collect(sourceRows(config, candidates(config)))
  const heldOut = await collect(first(config.evalInstructions, heldOutRows(config, candidates(config))))
  return { rows: rows.filter(({ failure }) => !failure), heldOut: heldOut.length }
}
