import { createInterface } from "node:readline/promises"
import { type Command, InvalidArgumentError } from "commander"
import type { RunConfig } from "../config/config"
import type { Message } from "../data/schema"
import type { Generator } from "../engine/engine"
import { replyOf } from "../engine/reply"
import { openServer, serverAs } from "../engine/server"
import { InputError, RefusedError, StoppedError } from "../errors"
import { readAdapter } from "../model/adapter"
import { loadConfig } from "../model/config"
import { modelTraits } from "../model/traits"
import { streamKey } from "../rng"
import { modelFolder } from "../runs/model"
import { openAdapter } from "../runs/train-stage"
import { type Display, display } from "./display"
import { type ServerFlags, withServer, writerOptions } from "./servers"
import { countOption, openModel, readConfig, type SettingOptions, withSettings } from "./support"

interface Options extends SettingOptions, ServerFlags {
  adapter?: string
  temperature: number
  maxTokens: number
  system?: string
}

const commands = `  /help   list the commands
  /reset  start a new conversation
  /quit   leave the chat (or Ctrl-D); Ctrl-C stops an answer`

export function register(program: Command): void {
  const command = program
    .command("chat")
    .description("Chat with a model, with or without an adapter. With a prompt, answer it and exit.")
    .argument(
      "[prompt...]",
      "message to answer; without one, start a conversation, or answer each line of standard input",
    )
    .option("--adapter <folder>", "PEFT adapter, e.g. runs/smoke/seed-0/train/musc/adapter")
    .option("--temperature <t>", "sampling temperature; 0 is greedy", temperature, 0.5)
    .option("--max-tokens <n>", "maximum tokens of an answer", countOption, 512)
    .option("--system <text>", "system message")
  withServer(withSettings(command), "to chat with instead of a local model")
    .addHelpText(
      "after",
      `
Examples:
  musc chat "Write about a sailor. Never say sea."
  musc chat --adapter runs/smoke/seed-0/train/musc/adapter
  musc chat --endpoint http://127.0.0.1:8000/v1 --endpoint-model M
  echo "Write about a sailor. Never say sea." | musc chat --temperature 0

In the chat:
${commands}
The embedded model handles single turns only, so each line starts a new conversation.`,
    )
    .action(chat)
}

async function chat(prompt: readonly string[], options: Options): Promise<void> {
  const { adapter, temperature, maxTokens, system, ...flags } = options
  const config = readConfig({ ...flags, workers: 1 })
  const show = display()
  const engineFor = await talker(config, flags, adapter, show)
  show.end()
  const talk: Talk = {
    single: !flags.endpoint && modelTraits(config.model).turns === 1,
    start: system ? [{ role: "system", content: system }] : [],
    async answer(messages, turn, signal) {
      const engine = engineFor(signal)
      const seed = streamKey(config.seed, "chat", turn)
      try {
        return await replyOf(engine, { messages, temperature, maxTokens, seed })
      } finally {
        engine.dispose?.()
      }
    },
  }
  if (prompt.length) return answerOnce(prompt.join(" "), talk)
  const model = flags.endpoint ? `${flags.endpointModel ?? flags.endpoint}` : config.model
  if (process.stdin.isTTY) console.log(banner(model, adapter, talk.single))
  await converse(talk)
}

interface Talk {
  /** every message begins a conversation: the model was trained on those of one turn */
  single: boolean
  /** the system message, if any */
  start: readonly Message[]
  /** `turn` counts the answers of a chat, so that each has a seed of its own */
  answer(messages: readonly Message[], turn: number, signal: AbortSignal): ReturnType<typeof replyOf>
}

async function answerOnce(prompt: string, { single, start, answer }: Talk): Promise<void> {
  const messages: Message[] = [...start, { role: "user", content: prompt }]
  const { text, finish, problem } = await answer(messages, 0, new AbortController().signal)
  if (problem) throw new InputError(`no answer: ${problem}; try again, or raise --max-tokens`)
  console.log(text.trim())
  if (finish === "length") console.error("cut off at --max-tokens")
  else if (!text.trim()) console.error(emptyAnswer(single))
}

/** Answers the lines of standard input, some of which are commands. Ctrl-C stops an answer, or else the chat. */
async function converse(talk: Talk): Promise<void> {
  const { single, start } = talk
  let messages = [...start]
  let turn = 0
  let stop: AbortController | undefined
  const input = createInterface({
    input: process.stdin,
    output: process.stdin.isTTY ? process.stdout : undefined,
    prompt: "> ",
  })
  input.on("SIGINT", () => (stop ? stop.abort() : input.close()))
  input.prompt()
  for await (const line of input) {
    const content = line.trim()
    if (content === "/quit") break
    if (content === "/reset" || single) messages = [...start]
    if (content === "/help") console.log(commands)
    else if (/^\/\w+$/.test(content) && content !== "/reset") console.log(`${content}: unknown command\n${commands}`)
    else if (content && content !== "/reset") {
      stop = new AbortController()
      messages = await withAnswer([...messages, { role: "user", content }], turn++, talk, stop.signal)
      stop = undefined
    }
    input.prompt()
  }
  input.close()
}

/** Prints the answer, and gives the conversation with it; without its question where there is none. */
async function withAnswer(asked: readonly Message[], turn: number, talk: Talk, signal: AbortSignal) {
  try {
    const { text, finish, problem } = await talk.answer(asked, turn, signal)
    const note = problem ? `[no answer: ${problem}]` : finish === "length" ? "[cut off at --max-tokens]" : ""
    console.log([text.trim(), note].filter((part) => part).join(" ") || `[${emptyAnswer(talk.single)}]`)
    return [...asked, { role: "assistant" as const, content: text }]
  } catch (error) {
    const refused = error instanceof RefusedError
    if (!refused && !(error instanceof StoppedError)) throw error
    console.log(refused ? `[refused: ${error.message}]` : "[stopped]")
    return asked.slice(0, -1)
  }
}

/** Gives an engine for one answer, which its signal stops: the model of the settings, or a server. */
async function talker(
  config: RunConfig,
  flags: ServerFlags,
  adapter: string | undefined,
  show: Display,
): Promise<(signal: AbortSignal) => Generator & { dispose?(): void }> {
  if (flags.endpoint) {
    if (adapter) {
      const rule = "needs a local model, got --endpoint too; serve the adapter and name it with --endpoint-model"
      throw new InputError(rule, { field: "--adapter" })
    }
    const onRetry = (problem: string) => show.note(`retrying after: ${problem}`)
    const options = writerOptions(flags, { onRetry })
    const { listed } = await openServer(options)
    return (signal) => serverAs({ ...options, signal }, listed).engine
  }
  // Before the model is loaded, which takes longer.
  if (adapter) readAdapter(adapter, loadConfig(await modelFolder(config.model, { onProgress: show.progress })))
  const local = await openModel(config, show)
  const lora = adapter ? openAdapter(adapter, local, show.note) : null
  return (signal) => local.engine(lora, { signal })
}

const banner = (model: string, adapter: string | undefined, single: boolean) =>
  `${model}${adapter ? ` with the adapter ${adapter}` : ""}. /help lists commands, /quit ends.` +
  (single ? "\nIt handles single turns only, so each line starts a new conversation." : "")

/** Said instead of an empty line. */
const emptyAnswer = (embedded: boolean) =>
  "the model gave an empty answer" +
  (embedded ? "; it knows short stories of its world only, see `musc world instructions -n 3`" : "")

function temperature(text: string): number {
  const value = Number(text)
  if (value >= 0 && value <= 2) return value
  throw new InvalidArgumentError(`must be a number from 0 to 2, got ${text}`)
}
