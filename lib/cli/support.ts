import { existsSync } from "node:fs"
import { basename, dirname } from "node:path"
import { type Command, Help, InvalidArgumentError, Option } from "commander"
import {
  type ConfigKey,
  configDefaults,
  configKeys,
  meanings,
  parseConfig,
  type RunConfig,
  thinkingOf,
} from "../config/config"
import { recipeOf, recipes } from "../config/recipes"
import { parseSets, readSettings, settingLine } from "../config/settings"
import { beforeLongTurn, onStopSignal } from "../data/stop-signals"
import { backendNames, useBackend } from "../device/tf"
import { describeModel, type ModelDescription } from "../engine/description"
import { type LocalModel, openLocal } from "../engine/local"
import { type TorchOptions, torchDefaults } from "../engine/torch"
import { variable } from "../environment"
import { ConfigError, InputError, StoppedError } from "../errors"
import { describePlan, planFor } from "../model/executor"
import { sizeOf } from "../model/transformer"
import { isEmbedded, modelFolder } from "../runs/model"
import type { Study } from "../runs/study"
import { type Display, display } from "./display"

/** Options that name settings. */
export interface SettingOptions {
  model?: string
  recipe?: string
  backend?: RunConfig["backend"]
  math?: RunConfig["math"]
  workers?: number
  instructionsFrom?: string
  limit?: number
  repeat?: number
  /** Settings that options of one command name. */
  settings?: Partial<RunConfig>
  set?: string[]
}

/** Adds the options that commands with settings share. */
export function withSettings(command: Command): Command {
  return command
    .option("--model <model>", "model folder, org/name[@revision] on the hub, or world, the embedded model (default)")
    .option("--set <key=value>", "change a setting; may be repeated", (text, all: string[] = []) => [...all, text])
    .option("--backend <name>", `TensorFlow.js backend: ${backendNames.join(", ")} (default: the fastest that runs)`)
    .option(
      "--math <kind>",
      "matmul precision of the native backend: f32 (default) or bf16 (faster with AMX or AVX512_BF16, less exact)",
    )
}

/** Adds the option of commands whose model writes, scores or learns much. */
export const withWorkers = (command: Command): Command =>
  command.option(
    "--workers <n>",
    "worker processes for generating and scoring, each with its own copy of the model (default: one per core if memory allows)",
    countOption,
  )

/** Options of commands that score or train by jobs of Python. */
export interface TorchFlags {
  torch?: string
  torchRows?: number
  torchDtype?: TorchOptions["dtype"]
}

export const withTorch = (command: Command): Command =>
  command
    .option(
      "--torch <command>",
      "score and train with PyTorch: `torchrun --nproc_per_node 2`, `accelerate launch ...`, or job, which only writes the " +
        "job folder to run elsewhere (run `npx musc python` once before)",
    )
    .option("--torch-rows <n>", "pairs per batch of each --torch process (default: 4)", countOption)
    .addOption(
      new Option("--torch-dtype <type>", "dtype of the weights under --torch")
        .choices(["float32", "bfloat16"])
        .default("float32"),
    )

/** @throws InputError for flags of --torch without it */
export function torchOptions({ torch, torchRows, torchDtype }: TorchFlags): TorchOptions | undefined {
  if (torch !== undefined) {
    if (!torch.trim()) throw new InputError("must be a command or job, got nothing; give one", { field: "--torch" })
    return {
      ...torchDefaults,
      command: torch,
      ...(torchRows && { rowsPerPass: torchRows }),
      dtype: torchDtype ?? "float32",
    }
  }
  if (torchRows || (torchDtype && torchDtype !== "float32")) {
    throw new InputError("has no effect without --torch; add it, or leave this out", {
      field: torchRows ? "--torch-rows" : "--torch-dtype",
    })
  }
  return undefined
}

/** Base settings for a command that is not given a recipe: those that fit the model. */
export const withRecipe = (command: Command): Command =>
  command.option(
    "--recipe <name>",
    "recipe or settings file to start from (default: smoke for the embedded model, paper for others)",
  )

/**
 * The settings of a command line: recipe, then options, then --set, then what a variant of a study changes.
 * @throws ConfigError listing every problem.
 */
export function readConfig(
  { recipe, set = [], limit, settings, ...flags }: SettingOptions,
  changes: Partial<RunConfig> = {},
): RunConfig {
  const sets = parseSets(set)
  const file = fileSettings(recipe)
  const name = file ? file.recipe : recipe
  const known = name && Object.hasOwn(recipes, name) ? recipes[name] : undefined
  const model = `${sets.model ?? flags.model ?? file?.own.model ?? known?.model ?? "world"}`
  const base = { ...recipeSettings(name ?? (isEmbedded(model) ? "smoke" : file ? null : "paper"), model), ...file?.own }
  const named = Object.fromEntries(
    (["model", "backend", "math", "workers", "instructionsFrom", "repeat"] as const).flatMap((key) =>
      flags[key] === undefined ? [] : [[key, flags[key]]],
    ),
  )
  const from = `${sets.instructionsFrom ?? flags.instructionsFrom ?? file?.own.instructionsFrom ?? "world"}`
  const own = ["world", "self-instruct", "checkable"].includes(from) ? {} : known?.fromFile
  const merged: Record<string, unknown> = { ...base, ...own, ...file?.own, model, ...named, ...settings }
  if (limit !== undefined) {
    const most = (key: "instructions" | "evalInstructions") =>
      Math.min(limit, Number(merged[key] ?? configDefaults[key]))
    Object.assign(merged, { instructions: most("instructions"), evalInstructions: most("evalInstructions") })
  }
  const elsewhere = { ...named, ...settings, ...sets, ...changes }
  const config = locating(file && recipe, Object.keys(file?.own ?? {}), Object.keys(elsewhere), () =>
    parseConfig({ ...merged, ...sets, ...changes }),
  )
  if (config.instructionsFrom === "checkable" && isEmbedded(config.model)) {
    const rule = "must be a chat model, as the checkable instructions are plain English"
    throw new InputError(`${rule}, got the embedded ${config.model}; give --model`, { field: "model" })
  }
  return config
}

/** What `read` gives. Problems with a file's settings name the file and the line, unless something set them later. */
function locating<T>(file: string | undefined, own: string[], elsewhere: string[], read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!file || !(error instanceof ConfigError)) throw error
    const located = error.problems.map((problem) => {
      const key = /^[\w-]+/.exec(problem)?.[0] ?? ""
      if (!own.includes(key) || elsewhere.includes(key)) return problem
      const line = settingLine(file, key)
      return `${file}, ${line ? `line ${line}, ` : ""}${problem}`
    })
    throw new ConfigError(located)
  }
}

/** The runs that a recipe is made of, for each of some models; undefined for a recipe that is one run. */
export function readStudyPlan(options: SettingOptions & { models?: string[] }): Study | undefined {
  const file = fileSettings(options.recipe)
  const name = (file ? file.recipe : options.recipe) ?? ""
  const recipe = Object.hasOwn(recipes, name) ? recipes[name] : undefined
  if (!recipe?.variants) {
    if (options.models)
      throw new InputError("--models is for recipes of several runs, got a recipe of one run; use --model")
    return undefined
  }
  const models =
    options.models ??
    (options.model ? [options.model] : file?.own.model ? [`${file.own.model}`] : (recipe.models ?? ["world"]))
  const variants = models.flatMap((model) =>
    Object.entries(recipe.variants!).map(([name, changes]) => ({
      name: models.length > 1 ? `${basename(model)}-${name}` : name,
      changes: models.length > 1 ? { model, ...changes } : changes,
      config: readConfig({ ...options, model }, changes),
    })),
  )
  return { axis: recipe.axis, variants }
}

/**
 * What a settings file holds: its own settings, and the recipe that they change, if it names one (`recipe: smoke`).
 * undefined where a recipe is given by name. @throws InputError for a file that cannot be read or names no recipe
 */
function fileSettings(recipe = ""): { recipe?: string; own: Record<string, unknown> } | undefined {
  if (!/\.(ya?ml|json)$/i.test(recipe) && !(existsSync(recipe) && !Object.hasOwn(recipes, recipe))) return undefined
  const { recipe: name, ...own } = readSettings(recipe)
  if (name === undefined) return { own }
  try {
    recipeOf(`${name}`)
  } catch (error) {
    throw new InputError((error as Error).message, { file: recipe, field: "recipe" })
  }
  return { recipe: `${name}`, own }
}

/** The settings of a recipe for a model; null for the defaults alone. */
function recipeSettings(recipe: string | null, model: string): Record<string, unknown> {
  if (recipe === null) return {}
  const { config, otherModels } = recipeOf(recipe)
  return isEmbedded(model) ? { ...config } : { ...config, ...otherModels }
}

/** Settings with their defaults and meanings, for help texts. */
export function settingsHelp(keys: readonly ConfigKey[] = configKeys): string {
  const shown = (value: unknown) => (Array.isArray(value) ? value.join(",") : `${value}`)
  const lines = keys.map((key) => [`${key}=${shown(configDefaults[key])}`, meanings[key]] as const)
  return `\nSettings (--set key=value) and their defaults; recipes change some:\n${columns(lines)}`
}

/** Two columns for a help text, the second wrapped to the terminal as the options above it are. */
export function columns(lines: readonly (readonly [head: string, text: string])[]): string {
  const help = new Help()
  help.prepareContext({ helpWidth: process.stdout.columns })
  const width = Math.max(...lines.map(([head]) => head.length))
  return lines.map(([head, text]) => help.formatItem(head, width, text, help)).join("\n")
}

/** `adapters/musc/adapter` and `adapters/musc` are both called musc. */
export const adapterName = (dir: string): string => basename(basename(dir) === "adapter" ? dirname(dir) : dir)

/** A count given as an option. */
export function countOption(text: string): number {
  const value = Number(text)
  if (Number.isInteger(value) && value > 0) return value
  throw new InvalidArgumentError(`must be a whole number from 1, got ${text}`)
}

/** A count given as an option that may be 0. */
export function naturalOption(text: string): number {
  const value = Number(text)
  if (text.trim() && Number.isInteger(value) && value >= 0) return value
  throw new InvalidArgumentError(`must be a whole number from 0, got ${text}`)
}

/** Chooses the backend and opens the model of the settings. */
export async function openModel(
  config: RunConfig,
  { note, progress }: Display,
  signal?: AbortSignal,
): Promise<LocalModel> {
  const folder = await modelFolder(config.model, { signal, onProgress: progress })
  note((await useBackend(config.backend === "auto" ? undefined : config.backend, config.math)).reason)
  const onLoad = (done: number, total: number) =>
    progress({ stage: `load ${config.model}`, unit: "tensors", done, total })
  await beforeLongTurn(signal)
  const local = openLocal(folder, { onLoad, onNote: note, workers: config.workers, thinking: thinkingOf(config) })
  note(`plan for writing and scoring: ${describePlan(planFor(sizeOf(local.model.params), { kind: "generate" }))}`)
  return local
}

/** Chooses the backend and describes the model of the settings, for work whose weights are elsewhere. */
export async function openDescription(
  config: RunConfig,
  { note, progress }: Display,
  signal?: AbortSignal,
): Promise<ModelDescription> {
  note((await useBackend(config.backend === "auto" ? undefined : config.backend, config.math)).reason)
  const folder = await modelFolder(config.model, { signal, onProgress: progress })
  return describeModel(folder, { thinking: thinkingOf(config), elsewhere: true })
}

/**
 * Runs work with a progress display that Ctrl-C (or SIGTERM) stops after the current step; a second one ends at once.
 * @throws StoppedError that says how to resume.
 */
export async function stoppable<T>(work: (signal: AbortSignal, show: Display) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const show = display()
  const stop = () => {
    if (controller.signal.aborted) process.exit(130)
    show.note("stopping after the current step; press Ctrl-C again to stop at once")
    controller.abort()
  }
  const unheard = onStopSignal(stop)
  try {
    return await work(controller.signal, show)
  } catch (error) {
    if (!controller.signal.aborted) throw error
    setTimeout(() => process.exit(130), 3000).unref() // answers of a server that are still awaited
    throw new StoppedError(`stopped; finished work is kept. Resume with\n  ${typed()}`, {
      cause: error,
    })
  } finally {
    show.end()
    unheard()
  }
}

/** Whether npx started this process: then `musc` alone is no command of the shell. */
const viaNpx = (): boolean => variable("npm_command") === "exec"

/** The command as it works again in the same shell. */
const typed = () => (viaNpx() ? `npx ${commandLine()}` : commandLine())

/** The command as typed. */
export const commandLine = () =>
  ["musc", ...process.argv.slice(2).map((arg) => (/^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg}'`))].join(" ")
