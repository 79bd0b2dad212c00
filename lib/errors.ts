/** Longest message: some quote a file, which may be hostile. */
const longest = 10_000

/** Base of every error that this package throws on purpose. Messages read "where: rule, got X; do Y". */
export class MuscError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message.length > longest ? `${message.slice(0, longest)} … (${message.length} characters)` : message, options)
    this.name = new.target.name
  }
}

/** A value from outside (file, flag, record) breaks a rule. Carries the place so that callers can point at it. */
export class InputError extends MuscError {
  readonly file?: string
  readonly line?: number
  readonly field?: string
  constructor(
    message: string,
    place: { file?: string; line?: number; field?: string } = {},
    options?: { cause?: unknown },
  ) {
    const where = [place.file, place.line === undefined ? undefined : `line ${place.line}`, place.field]
    const prefix = where.filter((part) => part !== undefined).join(", ")
    super(prefix ? `${prefix}: ${message}` : message, options)
    this.file = place.file
    this.line = place.line
    this.field = place.field
  }
}

/** An engine does not take this one request, however often it is asked; it may well take others. */
export class RefusedError extends InputError {
  /** The refusal in the engine's own words, without place and remedy, which may differ from run to run. */
  reason?: string
}

/** A run configuration has unknown keys or values out of range; `problems` lists all of them. */
export class ConfigError extends MuscError {
  constructor(readonly problems: readonly string[]) {
    super(
      `configuration: ${problems.length} problem${problems.length === 1 ? "" : "s"}\n  - ${problems.join("\n  - ")}`,
    )
  }
}

/** Problems that a message shows; a model of another size has a thousand, all alike. */
const shown = 50

/** A checkpoint or adapter cannot be loaded as it is; `problems` lists every mismatch at once. */
export class CheckpointError extends MuscError {
  constructor(
    where: string,
    readonly problems: readonly string[],
  ) {
    const more = problems.length > shown ? `; and ${problems.length - shown} more` : ""
    super(`${where}: ${problems.slice(0, shown).join("; ")}${more}`)
  }
}

/** The tfjs backend that was asked for cannot run here. */
export class BackendError extends MuscError {}

/** Work was stopped on request (Ctrl-C, an aborted signal). Everything finished so far is on disk. */
export class StoppedError extends MuscError {
  constructor(message = "stopped; run the same command again to resume", options?: { cause?: unknown }) {
    super(message, options)
  }
}

/** Not a failure: jobs are written, and somebody else runs them. The same command resumes when they have ended. */
export class PendingJobError extends MuscError {
  constructor(readonly folders: readonly string[]) {
    const runs = folders
      .map((folder) => `  bash ${/^[\w@%+=:,./-]+$/.test(folder) ? folder : `'${folder}'`}/run.sh\n`)
      .join("")
    const [are, them] = folders.length > 1 ? ["jobs are", "these"] : ["job is", "this"]
    super(`the ${are} written; run ${them} where the GPUs are, then the same command again:\n\n${runs}`)
  }
}
