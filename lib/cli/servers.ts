import { type Command, InvalidArgumentError, Option } from "commander"
import { parse as parseYaml } from "yaml"
import { serverAddresses } from "../engine/address"
import type { OpenAIOptions } from "../engine/openai"
import type { ServeOptions } from "../engine/serve"
import { type OptionalField, optionalFields } from "../engine/server-problem"
import { InputError } from "../errors"
import type { Progress } from "../runs/context"
import { countOption, naturalOption } from "./support"

/** What a command line says of a server that writes, as `withServer` reads it. */
export interface ServerFlags {
  endpoint?: string
  endpointModel?: string
  concurrency: number
  timeout: number
  retries: number
  wait: number
  keyVariable: string
  limitField: string
  leaveOut: OptionalField[]
  field: Record<string, unknown>
  thinking?: boolean
  thinkingTokens: number
  thoughtsOpen?: boolean
}

/** The same, or a server that the command starts. */
export interface ServedFlags extends ServerFlags {
  serve?: string
  serveTimeout: number
}

/** What it says of a judging server: what is not said is as for the server that answers. */
export interface JudgeFlags {
  judge?: string
  judgeModel?: string
  judgeKeyVariable?: string
  judgeConcurrency?: number
  judgeLimitField?: string
  judgeLeaveOut?: OptionalField[]
  judgeField?: Record<string, unknown>
  judgeThinking?: boolean
  judgeThinkingTokens?: number
  judgeThoughtsOpen?: boolean
}

/** Options of every command that talks to a server. */
export function withServer(command: Command, what = "that generates instead of a local model"): Command {
  return withServerSettings(
    command
      .option(
        "--endpoint <url>",
        `OpenAI-compatible server ${what}, e.g. http://127.0.0.1:8000/v1; several servers of the same model: comma-separated`,
        addresses("--endpoint"),
      )
      .option("--endpoint-model <name>", "name of the model on the server")
      .hook("preAction", (running) =>
        checkServed(running.opts<Pick<ServedFlags, "endpoint" | "endpointModel" | "serve">>()),
      ),
  )
}

/** @throws InputError for the model of a server that is not named: the command would go on without it */
function checkServed({ endpoint, endpointModel, serve }: Pick<ServedFlags, "endpoint" | "endpointModel" | "serve">) {
  if (endpointModel === undefined || endpoint) return
  const way = serve === undefined ? "add it" : "leave it out: --serve asks for the model that its server lists"
  throw new InputError(`names a model of --endpoint, got no --endpoint; ${way}`, { field: "--endpoint-model" })
}

/** Options of commands that can start a server. */
export const withServe = (command: Command, what: string): Command =>
  command
    .option(
      "--serve <command>",
      `start this server ${what}, e.g. \`vllm serve {model} --port {port} --enable-lora\`; its log goes next to the output`,
    )
    .option("--serve-timeout <seconds>", "longest start of the --serve server, in seconds", countOption, 1800)

/** @throws InputError for a server that runs and one to be started */
export function servedOptions(
  flags: ServedFlags,
  log: string,
  onProgress: (progress: Progress) => void,
): Omit<ServeOptions, "signal" | "onNote"> {
  if (flags.endpoint)
    throw new InputError("starts a server, --endpoint names a running one, got both; leave one out", {
      field: "--serve",
    })
  const waited = (done: number, total: number) =>
    onProgress({ stage: "start of the server", unit: "seconds", done, total })
  const { serve: command = "", serveTimeout: startTimeout } = flags
  return { command, log, startTimeout, client: settingsOf(flags), onProgress: waited }
}

/** How servers are asked, for commands that have their own options for who they are. */
function withServerSettings(command: Command): Command {
  return command
    .option("--concurrency <n>", "concurrent requests", countOption, 8)
    .option("--timeout <seconds>", "timeout of one request", countOption, 300)
    .option("--retries <n>", "retries of a failed request", naturalOption, 5)
    .option(
      "--wait <seconds>",
      "how long to keep trying while no server is reachable, e.g. during a restart",
      naturalOption,
      0,
    )
    .option("--key-variable <name>", "environment variable that holds the server's API key", "OPENAI_API_KEY")
    .option(
      "--limit-field <name>",
      "request field for the token limit, e.g. max_completion_tokens; none omits it",
      "max_tokens",
    )
    .addOption(
      new Option(
        "--leave-out <fields>",
        `request fields to omit because the server rejects them: ${optionalFields.join(", ")}`,
      )
        .argParser(fieldList)
        .default([], "none"),
    )
    .addOption(
      new Option("--field <key=value>", "extra request field, e.g. top_k=-1; may be repeated")
        .argParser(fieldOption)
        .default({}, "none"),
    )
    .option("--thinking <on|off>", "thinking on or off, for models whose chat template can switch it", onOff)
    .option("--thinking-tokens <n>", "extra tokens for thinking, on top of each limit", naturalOption, 0)
    .option("--thoughts-open", "the chat template opens the thinking block, so replies start inside it")
}

/** Options of commands that a server can judge for. */
export function withJudge(command: Command): Command {
  const same = "(default: as for the answering server)"
  return command
    .option("--judge <url>", "OpenAI-compatible judge server; several as for --endpoint", addresses("--judge"))
    .option("--judge-model <name>", "name of the judge model on its server")
    .option("--judge-key-variable <name>", "environment variable that holds the judge's API key", "OPENAI_API_KEY")
    .option("--judge-concurrency <n>", `concurrent requests to the judge ${same}`, countOption)
    .option("--judge-limit-field <name>", `request field for the judge's token limit ${same}`)
    .option("--judge-leave-out <fields>", `request fields to omit for the judge ${same}`, fieldList)
    .option("--judge-field <key=value>", `extra request field for the judge ${same}`, fieldOption)
    .option("--judge-thinking <on|off>", `thinking on or off for the judge ${same}`, onOff)
    .option("--judge-thinking-tokens <n>", `extra thinking tokens for the judge ${same}`, naturalOption)
    .option("--judge-thoughts-open <on|off>", `whether the judge server's template opens the thoughts ${same}`, onOff)
}

type Extra = Pick<OpenAIOptions, "signal" | "onRetry">

/** The server that writes. @throws InputError when no model is named */
export function writerOptions(flags: ServerFlags, extra: Extra = {}): OpenAIOptions {
  const { endpoint, endpointModel } = flags
  if (!endpointModel) {
    throw new InputError("must name a model on the server, got nothing; give --endpoint-model", {
      field: "--endpoint-model",
    })
  }
  return { ...settingsOf(flags), model: endpointModel, baseURL: endpoint, ...extra }
}

/** The server that judges. @throws InputError when no model is named */
export function judgeServerOptions(flags: ServerFlags & JudgeFlags, extra: Extra = {}): OpenAIOptions {
  const { judge, judgeModel } = flags
  if (!judgeModel)
    throw new InputError("must name the model of --judge, got nothing; add it", { field: "--judge-model" })
  return { ...judgeSettingsOf(flags), model: judgeModel, baseURL: judge, ...extra }
}

/** How the judging server is asked. */
export function judgeSettingsOf(flags: ServerFlags & JudgeFlags): Omit<OpenAIOptions, "model"> {
  return settingsOf({
    ...flags,
    keyVariable: flags.judgeKeyVariable ?? flags.keyVariable,
    concurrency: flags.judgeConcurrency ?? flags.concurrency,
    limitField: flags.judgeLimitField ?? flags.limitField,
    leaveOut: flags.judgeLeaveOut ?? flags.leaveOut,
    field: flags.judgeField ?? flags.field,
    thinking: flags.judgeThinking ?? flags.thinking,
    thinkingTokens: flags.judgeThinkingTokens ?? flags.thinkingTokens,
    thoughtsOpen: flags.judgeThoughtsOpen ?? flags.thoughtsOpen,
  })
}

/** How a server is asked, as the library says it. */
function settingsOf(flags: ServerFlags): Omit<OpenAIOptions, "model"> {
  const { concurrency, timeout, retries, wait, keyVariable, limitField, leaveOut, field } = flags
  const { thinking, thinkingTokens, thoughtsOpen } = flags
  const template = thinking === undefined ? {} : { enable_thinking: thinking }
  const templateOptions = (field.chat_template_kwargs ?? {}) as object
  const fields =
    thinking === undefined ? field : { ...field, chat_template_kwargs: { ...templateOptions, ...template } }
  return {
    ...{ concurrency, timeout, maxRetries: retries, wait, keyVariable, leaveOut, fields, thinkingTokens, thoughtsOpen },
    limitField: limitField === "none" ? null : limitField,
  }
}

/** Addresses as given, checked. The error shows none of them, as the option's own would. */
const addresses = (field: string) => (text: string) =>
  serverAddresses(text, field)
    .map(({ href }) => href)
    .join(",")

export function onOff(text: string): boolean {
  if (text === "on" || text === "off") return text === "on"
  throw new InvalidArgumentError(`must be on or off, got ${text}`)
}

function fieldList(text: string): OptionalField[] {
  const names = text.split(",").map((name) => name.trim())
  const unknown = names.find((name) => !optionalFields.includes(name as OptionalField))
  if (unknown === undefined) return names as OptionalField[]
  const limit = /^max_/.test(unknown) ? "; omit the token limit with --limit-field none" : ""
  throw new InvalidArgumentError(`must name some of ${optionalFields.join(", ")}, got ${unknown}${limit}`)
}

function fieldOption(text: string, all: Record<string, unknown> = {}): Record<string, unknown> {
  const at = text.indexOf("=")
  if (at < 1) throw new InvalidArgumentError(`must read key=value, got ${text}; write e.g. top_k=-1`)
  let value: unknown = text.slice(at + 1)
  try {
    value = parseYaml(text.slice(at + 1))
  } catch {} // a plain text
  return { ...all, [text.slice(0, at)]: value }
}
