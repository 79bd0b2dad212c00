import { readFileSync } from "node:fs"
import { parse as parseYaml } from "yaml"
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
    const got = (cause as Error).message.split("\n")[0]
    throw new InputError(`must be YAML or JSON, got ${got}; repair it`, { file }, { cause })
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new InputError(`must hold settings as key: value lines, got ${show(value)}; repair it`, { file })
  for (const key of Object.keys(value)) currentName(key)
  return withCurrentNames(value as Record<string, unknown>)
}
