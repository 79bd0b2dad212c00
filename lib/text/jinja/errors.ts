/** What a template itself got wrong, or what it raised. */
export class TemplateError extends Error {
  constructor(message: string, line?: number) {
    super(line === undefined ? message : `${message}, line ${line}`)
    this.name = new.target.name
  }
}

/** Something that jinja2 can do and this renderer cannot; it is named, never rendered in another way. */
export class UnsupportedError extends TemplateError {
  constructor(what: string) {
    super(`${what} is not supported here`)
  }
}

/** A template that went beyond its budget of steps or text. */
export class BudgetError extends TemplateError {}
