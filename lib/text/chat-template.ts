import { existsSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { Environment, Interpreter, Template } from "@huggingface/jinja"
import { isJsonObject, type JsonObject } from "../data/json-file"
import { InputError } from "../errors"

/** A model folder's Jinja chat template. */
export interface ChatTemplate {
  /** Where it was found, for messages. */
  readonly file: string
  /**
   * The template's text for `variables` (messages, add_generation_prompt, special token texts).
   * @throws InputError naming the file: what the template itself refuses (e.g. a system message), or cannot be run.
   */
  render(variables: Readonly<Record<string, unknown>>): string
}

const maxTemplateBytes = 2 ** 18
/** Numbers that all calls of `range` in one rendering may give, so that nested loops end soon. */
const maxRange = 20_000

/**
 * `chat_template.jinja`, else `chat_template` of tokenizer_config.json (a text, or a list from which "default" is taken);
 * null if there is neither. A template comes from strangers: its size and its loops over `range` are bounded, and the
 * template language itself reaches nothing outside.
 * @throws InputError: too large, or not Jinja.
 */
export function readChatTemplate(dir: string, settings: JsonObject): ChatTemplate | null {
  const jinja = join(dir, "chat_template.jinja")
  if (existsSync(jinja)) {
    checkSize(statSync(jinja).size, jinja)
    return compile(readFileSync(jinja, "utf8"), jinja)
  }
  const file = join(dir, "tokenizer_config.json")
  const listed = settings.chat_template
  const template = Array.isArray(listed)
    ? (listed.filter(isJsonObject).find((entry) => entry.name === "default") ?? listed[0])?.template
    : listed
  if (template === undefined || template === null) return null
  if (typeof template !== "string")
    throw new InputError("must be a text or a list of named texts", { file, field: "chat_template" })
  checkSize(template.length, file)
  return compile(template, `${file}, chat_template`)
}

function checkSize(size: number, file: string): void {
  if (size > maxTemplateBytes) {
    throw new InputError(`a chat template must have at most ${maxTemplateBytes} characters, got ${size}; shorten it`, {
      file,
    })
  }
}

function compile(source: string, file: string): ChatTemplate {
  const guard = <T>(what: string, run: () => T): T => {
    try {
      return run()
    } catch (cause) {
      throw new InputError(`${what}: ${(cause as Error).message}`, { file }, { cause })
    }
  }
  const { parsed } = guard("the chat template must be Jinja that can be run here, got", () => new Template(source))
  const render = (variables: Readonly<Record<string, unknown>>) =>
    guard("the chat template refuses these messages", () => {
      const environment = new Environment()
      for (const [name, value] of Object.entries({ ...globals, range: boundedRange(), ...variables }))
        environment.set(name, value)
      return `${new Interpreter(environment).run(parsed).value}`
    })
  return { file, render }
}

const raise = (message: string): never => {
  throw new Error(message)
}

/**
 * What every template may call. Some write today's date into the system message; a run that is resumed tomorrow must
 * still see the same prompts, so the date stands still, at the one that Llama's templates have as their own fallback.
 */
const globals = {
  ...{ true: true, True: true, false: false, False: false, none: null, None: null },
  raise_exception: raise,
  date_string: "26 Jul 2024",
  strftime_now: (format: string) => {
    const parts: Record<string, string> = {
      Y: "2024",
      m: "07",
      d: "26",
      b: "Jul",
      B: "July",
      H: "00",
      M: "00",
      "%": "%",
    }
    return format.replace(/%([YmdbBHM%])/g, (_, part: string) => parts[part]!)
  },
}

/** The template's `range`, which refuses to go on above `maxRange` numbers. */
function boundedRange() {
  let given = 0
  return (start: number, stop?: number | null, step?: number | null) => {
    const [from, to] = typeof stop === "number" ? [start, stop] : [0, start]
    const length = Math.max(0, Math.ceil((to - from) / (step ?? 1)))
    given += length
    if (!(given <= maxRange)) raise(`range must give at most ${maxRange} numbers, got ${given}`)
    return Array.from({ length }, (_, i) => from + i * (step ?? 1))
  }
}
