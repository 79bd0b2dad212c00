import { createInterface } from "node:readline/promises"
import { type Command, InvalidArgumentError } from "commander"
import type { RunConfig } from "../config/config"
import type { Message } from "../data/schema"
import type { Generator } from "../engine/engine"
import { replyOf } from "../engine/reply"
import { openServer, serverAs } from "../engine/server"
import { InputError, RefusedError, StoppedError } from "../errors"
import { streamKey } from "../rng"
import { openAdapter } from "../runs/train-stage"
import { type Display, display } from "./display"
import { type ServerFlags, withServer, writerOptions } from "./servers"
import { openModel, readConfig, type SettingOptions, withSettings } from "./support"

interface Options extends SettingOptions, ServerFlags {
  adapter?: string
  temperature: number
  maxTokens: number
  system?: string
}

export function register(program: Command): void {
  const command = program
    .command("chat")
    .description("Talk with a model, with or without an adapter.")
    .option("--adapter <folder>", "PEFT adapter, e.g. runs/smoke/seed-0/train/musc/adapter")
    .option("--temperature <t>", "sampling temperature, 0 is greedy", temperature, 0.5)
    .option("--max-tokens <n>", "longest answer", Number, 512)
    .option("--system <text>", "system message")
  withServer(withSettings(command), "to talk with instead of a local model")
    .addHelpText(
      "after",
      `
Examples:
  musc chat --adapter runs/smoke/seed-0/train/musc/adapter
  musc chat --endpoint http://127.0.0.1:8000/v1 --endpoint-model M
  echo "Write about a sailor. Never say sea." | musc chat --temperature 0

In the chat: /reset forgets the turns so far, /quit or Ctrl-D ends, Ctrl-C stops an answer.
The embedded model knows single turns only: each line starts anew.`,
    )
    .action(chat)
}

async function chat({ adapter, temperature, maxTokens, system, ...given }: Options): Promise<void> {
  const config = readConfig({ ...given, workers: 1 })
  const show = display()
  const engineFor = await talker(config, given, adapter, show)
  show.end()
  const single = config.model === "world" && !given.endpoint
  const start: Message[] = system ? [{ role: "system", content: system }] : []
  let messages = [...start]
  let turn = 0
  let stop = new AbortController()
  let answering = false
  const input = createInterface({
    input: process.stdin,
    output: process.stdin.isTTY ? process.stdout : undefined,
    prompt: "> ",
  })
  input.on("SIGINT", () => (answering ? stop.abort() : input.close()))
  input.prompt()
  for await (const line of input) {
    const content = line.trim()
    if (content === "/quit") break
    if (content === "/reset" || single) messages = [...start]
    if (content && content !== "/reset") {
      messages.push({ role: "user", content })
      stop = new AbortController()
      answering = true
      const engine = engineFor(stop.signal)
      try {
        const seed = streamKey(config.seed, "chat", turn++)
        const { text, finish, problem } = await replyOf(engine, { messages, temperature, maxTokens, seed })
        const note = problem ? `[no answer: ${problem}]` : finish === "length" ? "[cut off at --max-tokens]" : ""
        console.log([text.trim(), note].filter((part) => part).join(" "))
        messages.push({ role: "assistant", content: text })
      } catch (error) {
        const refused = error instanceof RefusedError
        if (!refused && !(error instanceof StoppedError)) throw error
        console.log(refused ? `[refused: ${error.message}]` : "[stopped]")
        messages.pop()
      } finally {
        engine.dispose?.()
        answering = false
      }
    }
    input.prompt()
  }
  input.close()
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
      const rule =
        "must go with a model in this process, got --endpoint too; serve the adapter, and name it by --endpoint-model"
      throw new InputError(rule, { field: "--adapter" })
    }
    const onRetry = (problem: string) => show.note(`trying again after: ${problem}`)
    const options = writerOptions(flags, { onRetry })
    const { listed } = await openServer(options)
    return (signal) => serverAs({ ...options, signal }, listed).engine
  }
  const local = await openModel(config, show)
  const lora = adapter ? openAdapter(adapter, local, show.note) : null
  return (signal) => local.engine(lora, { signal })
}

function temperature(text: string): number {
  const value = Number(text)
  if (value >= 0 && value <= 2) return value
  throw new InvalidArgumentError(`must be a number from 0 to 2, got ${text}`)
}
