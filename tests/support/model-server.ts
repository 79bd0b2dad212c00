import { createServer, type ServerResponse } from "node:http"
import { useBackend } from "../../lib/device/tf"
import { openLocal } from "../../lib/engine/local"
import { readAdapter } from "../../lib/model/adapter"
import { fromAdapter } from "../../lib/model/lora"
import { responseLogProbs } from "./log-probs"

/**
 * A server of a model folder in a process of its own, for runs over the wire where no other is installed:
 *
 *     node --require tsx/cjs tests/support/model-server.ts MODEL --port N [--lora-modules NAME=FOLDER ...]
 *
 * It speaks what musc asks of vLLM: chat completions with seeds, log-probs of a prompt's ids, adapters by name. It logs
 * answered calls as uvicorn does. The model computes as in process, so answers are equal to the last character.
 */
const [folder = "world", ...args] = process.argv.slice(2)
const port = Number(args[args.indexOf("--port") + 1])
const at = args.indexOf("--lora-modules")
const modules = at < 0 ? [] : args.slice(at + 1).map((word) => word.split("=") as [string, string])

interface Asked {
  model: string
  messages: { role: "user"; content: string }[]
  temperature: number
  top_p?: number
  max_tokens: number
  seed: number
  stop?: string[]
  prompt?: number[]
}

async function main(): Promise<void> {
  await useBackend()
  const local = openLocal(folder)
  const engines = new Map([[folder, local.engine()]])
  for (const [name, dir] of modules) engines.set(name, local.engine(fromAdapter(readAdapter(dir, local.config))))
  const send = (response: ServerResponse, value: object, status = 200) => {
    response.writeHead(status, { "content-type": "application/json" })
    response.end(JSON.stringify(value))
  }

  const answer = async (body: Asked): Promise<object> => {
    const engine = engines.get(body.model)
    if (!engine) throw new Error(`no model ${body.model}`)
    if (body.prompt) {
      const [first, ...rest] = body.prompt
      const values = await responseLogProbs(local, [first!], rest)
      const texts = local.tokenizer.tokenText(body.prompt)
      const told = values.map((logprob, i) => ({ [rest[i]!]: { logprob, rank: 1, decoded_token: texts[i + 1] } }))
      return { choices: [{ text: "", prompt_logprobs: [null, ...told] }] }
    }
    const { messages, temperature, top_p: topP, max_tokens: maxTokens, seed, stop } = body
    const { text, tokens, finish } = await engine.generate({ messages, temperature, topP, maxTokens, seed, stop })
    return {
      choices: [{ message: { role: "assistant", content: text }, finish_reason: finish }],
      usage: { prompt_tokens: 1, completion_tokens: tokens },
    }
  }

  createServer((request, response) => {
    if (request.method === "GET") {
      const listed = [...engines.keys()].map((id) => ({ id, ...(id === folder && { root: folder }) }))
      return send(response, { data: listed })
    }
    let text = ""
    request.on("data", (part) => {
      text += part
    })
    request.on("end", () => {
      answer(JSON.parse(text)).then(
        (value) => {
          send(response, value)
          console.log(`INFO: "POST ${request.url} HTTP/1.1" 200 OK`)
        },
        (error: Error) => send(response, { error: { message: error.message } }, 404),
      )
    })
  }).listen(port, "127.0.0.1", () => console.log(`process ${process.pid} is ready`))
}

void main()
