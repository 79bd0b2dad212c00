import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { isJsonObject, type JsonObject } from "../data/json-file"
import { InputError, RefusedError } from "../errors"
import { UnsupportedError } from "./jinja/errors"
import { compileTemplate } from "./jinja/template"

/** A model folder's Jinja chat template. */
export interface ChatTemplate {
  /** Where it was found, for messages. */
  readonly file: string
  /**
   * The template's text for `variables` (messages, add_generation_prompt, special token texts).
   * @throws RefusedError naming the file: what the template itself refuses (e.g. a system message), or cannot be run.
   */
  render(variables: Readonly<Record<string, unknown>>): string
  /** Whether the template's text has a variable of this name, so that it can make a difference. */
  mentions(variable: string): boolean
}

/** The folder of a model's further templates. */
export const templateFolder = "additional_chat_templates"

/** Where Transformers looks first. */
export const defaultTemplate = join(templateFolder, "default.jinja")

const maxTemplateBytes = 2 ** 18
/**
 * `additional_chat_templates/default.jinja`, else `chat_template.jinja`, else `chat_template` of tokenizer_config.json
 * (a text, or a list from which "default" is taken); null if there is none. A template comes from strangers: its size
 * and what a rendering may cost are bounded, and the template language itself reaches nothing outside.
 * @throws InputError: too large, not Jinja, or several without a default.
 */
export function readChatTemplate(dir: string, settings: JsonObject): ChatTemplate | null {
  const folder = join(dir, templateFolder)
  const files = existsSync(folder) && statSync(folder).isDirectory() ? readdirSync(folder) : []
  const more = files.filter((name) => name.endsWith(".jinja")).sort()
  const jinja = [join(dir, defaultTemplate), join(dir, "chat_template.jinja")].find((file) => existsSync(file))
  if (jinja) {
    checkSize(statSync(jinja).size, jinja)
    return compile(readFileSync(jinja, "utf8"), jinja)
  }
  if (more.length) {
    const cure = "write the one to use to chat_template.jinja"
    throw new InputError(`several templates must have a default, got ${more.join(", ")}; ${cure}`, { file: folder })
  }
  const file = join(dir, "tokenizer_config.json")
  const listed = settings.chat_template
  const template = Array.isArray(listed) ? defaultOf(listed, file) : listed
  if (template === undefined || template === null) return null
  if (typeof template !== "string")
    throw new InputError("must be a text or a list of named texts", { file, field: "chat_template" })
  checkSize(template.length, file)
  return compile(template, `${file}, chat_template`)
}

/** As in Transformers: the last one of that name, and no other in its place. */
function defaultOf(listed: readonly unknown[], file: string): unknown {
  const named = listed.filter(isJsonObject)
  const template = named.filter(({ name }) => name === "default").at(-1)
  if (template) return template.template
  const names = named.map(({ name }) => `${name}`).join(", ") || "none"
  const cure = "write the one to use to chat_template.jinja"
  throw new InputError(`a list of templates must name a default, got ${names}; ${cure}`, {
    file,
    field: "chat_template",
  })
}

function checkSize(size: number, file: string): void {
  if (size > maxTemplateBytes) {
    throw new InputError(`a chat template must have at most ${maxTemplateBytes} characters, got ${size}; shorten it`, {
      file,
    })
  }
}

function compile(source: string, file: string): ChatTemplate {
  const guard = <T>(what: string, run: () => T, kind: typeof InputError = InputError): T => {
    try {
      return run()
    } catch (cause) {
      const cure = cause instanceof UnsupportedError ? "; write that part in another way" : ""
      const reason = `${what}: ${(cause as Error).message}${cure}`
      const error = new kind(reason, { file }, { cause })
      throw error instanceof RefusedError ? Object.assign(error, { reason }) : error
    }
  }
  const render = guard("the chat template must be Jinja that can be run here, got", () => compileTemplate(source))
  return {
    file,
    mentions: (variable) => new RegExp(`\\b${variable}\\b`).test(source),
    render: (variables) =>
      guard("the chat template refuses these messages", () => render({ ...absent, ...variables }), RefusedError),
  }
}

/** What Transformers passes where there are none. */
const absent = { tools: null, documents: null }
