import { readFileSync } from "node:fs"
import { parse as parseYaml, type YAMLParseError } from "yaml"
import { fileError } from "../data/files"
import { show } from "../data/json-file"
import { ConfigError, InputError } from "../errors"
import { type ConfigKey, formerNames, runConfig, withCurrentNames } from "./config"

/**
 * `key=value` texts as settings. A value is read as YAML (`1e-4`, `true`, `[0, .5]`); lists may also be written
 * `base,musc`. Whether it fits is for parseConfig to say.
 * @throws ConfigError for texts without `=`.
 */
export function parseSets(sets: readonly string[]): Record<string, unknown> {
  const wrong = sets.filter((text) => !/^[^=\s]+=/.test(text))
  if (wrong.length)
    throw new ConfigError(wrong.map((text) => `--set ${text}: must read key=value; write e.g. --set lr=1e-4`))
  return Object.fromEntries(
    sets.map((text) => {
      const at = text.indexOf("=")
      const key = currentName(text.slice(0, at))
      return [key, settingOf(key, text.slice(at + 1))]
    }),
  )
}

const noted = new Set<string>()

/** The name that a setting has now; says so, once, where a command still uses a former one. */
function currentName(name: string): string {
  const now = Object.hasOwn(formerNames, name) ? formerNames[name] : undefined
  if (now && !noted.has(name)) console.error(`note: the setting ${name} is called ${now} now`)
  noted.add(name)
  return now ?? name
}

function settingOf(key: string, text: string): unknown {
  const yaml = (part: string): unknown => {
    try {
      return parseYaml(part)
    } catch {
      return part
    }
  }
  const field = Object.hasOwn(runConfig.shape, key) ? runConfig.shape[key as ConfigKey] : undefined
  const list = text.split(",").map((part) => yaml(part.trim()))
  const readings = Array.isArray(field?.parse(undefined)) ? [yaml(text), list] : [yaml(text), text]
  return readings.find((value) => field?.safeParse(value).success) ?? readings.find(Array.isArray) ?? readings[0]
}

/** The settings that a YAML or JSON file holds. @throws InputError naming the file. */
export function readSettings(file: string): Record<string, unknown> {
  let text: string
  try {
    text = readFileSync(file, "utf8")
  } catch (error) {
    throw fileError(error, file, "read")
  }
  let value: unknown
  try {
    value = parseYaml(text)
  } catch (cause) {
    const { message, linePos } = cause as YAMLParseError
    const got = message.split("\n")[0]!.replace(/ at line \d+, column \d+:?$/, "")
    const rule = `must be YAML or JSON, got an error: ${got}; check indentation, colons and quotes here and in the next line`
    throw new InputError(rule, { file, line: linePos?.[0].line }, { cause })
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const got = value === null ? "an empty file" : show(value)
    throw new InputError(`must hold settings as key: value lines, such as lr: 1e-4, got ${got}; correct it`, { file })
  }
  for (const key of Object.keys(value)) currentName(key)
  return withCurrentNames(value as Record<string, unknown>)
}

/** Line of a setting in its file, from 1; undefined where it is not found. */
export function settingLine(file: string, key: string): number | undefined {
  const lines = readFileSync(file, "utf8").split("\n")
  const at = lines.findIndex((line) => /^\W*([\w-]+)["']?\s*:/.exec(line)?.[1] === key)
  return at < 0 ? undefined : at + 1
}
