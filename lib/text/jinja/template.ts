import { TemplateError } from "./errors"
import { Interpreter } from "./interpreter"
import { parse } from "./parser"
import { framesOf } from "./symbols"
import { fromJson } from "./values"

/** A compiled template: the text for variables, which are JSON values. */
export type Render = (variables: Readonly<Record<string, unknown>>) => string

/**
 * Compiles a chat template. The result is what Transformers renders with jinja2 3.1 in its immutable sandbox, to the
 * character; what is not supported is refused by name. A rendering is bounded in steps, text and depth.
 * @throws TemplateError
 */
export function compileTemplate(source: string): Render {
  const body = withinStack(() => parse(source))
  const frames = withinStack(() => framesOf(body))
  return (variables) => {
    const values = Object.entries(variables).map(([name, value]) => [name, fromJson(value)] as const)
    return withinStack(() => new Interpreter(frames).render(body, new Map(values)))
  }
}

/** Chains such as `a and a and …` make no depth that the parser counts, but each link is a call here and in Python. */
function withinStack<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (error instanceof RangeError) throw new TemplateError("its expressions are chained or nested too deeply")
    throw error
  }
}
