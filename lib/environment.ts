import { homedir } from "node:os"
import { join } from "node:path"
import { InputError } from "./errors"

type Read<T> = (value: string, name: string) => T

const text: Read<string> = (value) => value

const flag: Read<boolean> = (value) => /^(1|on|yes|true)$/i.test(value)

const count: Read<number> = (value, field) => {
  if (!/^\d+$/.test(value)) throw new InputError(`must be a whole number, got ${value}; correct it`, { field })
  return Number(value)
}

const oneOf =
  <Choice extends string>(...choices: Choice[]): Read<Choice> =>
  (value, field) => {
    const choice = choices.find((one) => one === value)
    if (!choice) throw new InputError(`must be ${choices.join(" or ")}, got ${value}; correct it`, { field })
    return choice
  }

const url: Read<string> = (value, field) => {
  if (!URL.canParse(value)) throw new InputError(`must be a URL, got ${value}; correct it`, { field })
  return value.replace(/\/+$/, "")
}

/** Every environment variable that the library reads, and how. data/docs/environment.md says what each one does. */
export const variables = {
  MUSC_BACKEND: text,
  MUSC_CACHE: text,
  MUSC_PYTHON: text,
  MUSC_NOTEBOOK: oneOf("publish", "live"),
  MUSC_GRAPHS: oneOf("strict"),
  MUSC_CUDA_GRAPHS: oneOf("functions", "xla"),
  XDG_CACHE_HOME: text,
  OPENAI_BASE_URL: text,
  HF_HOME: text,
  HF_ENDPOINT: url,
  HF_TOKEN: text,
  HF_TOKEN_PATH: text,
  HF_HUB_OFFLINE: flag,
  TF_NUM_INTRAOP_THREADS: count,
  ONEDNN_DEFAULT_FPMATH_MODE: text,
  NVIDIA_TF32_OVERRIDE: text,
  TF_CPP_MIN_LOG_LEVEL: text,
  TF_FORCE_GPU_ALLOW_GROWTH: text,
  XLA_FLAGS: text,
  CUDA_HOME: text,
  CXX: text,
  VIRTUAL_ENV: text,
  LD_LIBRARY_PATH: (value: string) => value.split(":").filter(Boolean),
  NO_COLOR: text,
  PATH: text,
  JUPYTER_PATH: text,
  npm_command: text,
} satisfies Record<string, Read<unknown>>

type Variables = typeof variables
export type VariableName = keyof Variables

/**
 * What an environment variable says now; undefined if it is unset or empty.
 * @throws InputError that names the variable, for a value that it cannot have
 */
export function variable<Name extends VariableName>(name: Name): ReturnType<Variables[Name]> | undefined {
  const value = process.env[name]
  return value ? (variables[name](value, name) as ReturnType<Variables[Name]>) : undefined
}

/** The content of a variable that the user chose to hold a key. */
export const secretVariable = (name: string): string => (process.env[name] ?? "").trim()

/** Variables by the beginning of their names, for a report. */
export const variablesLike = (prefix: string): string[] =>
  Object.entries(process.env).flatMap(([name, value]) => (name.startsWith(prefix) ? [`${name}=${value}`] : []))

/** Sets a variable for this process and those that it starts. */
export function setVariable(name: VariableName, value: string): void {
  process.env[name] = value
}

/** Sets a variable that the user left unset. */
export function setDefault(name: VariableName, value: string): void {
  process.env[name] ??= value
}

/** The variables of this process with others beside them, for a process that it starts. */
export const withVariables = (more: Readonly<Record<string, string>>): NodeJS.ProcessEnv => ({
  ...process.env,
  ...more,
})

/** The folder of a program below the user's cache. */
export const userCache = (program: string): string =>
  join(variable("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), program)

/** What musc fetches for all projects of the user. */
export const cacheFolder = (): string => variable("MUSC_CACHE") ?? userCache("musc")
