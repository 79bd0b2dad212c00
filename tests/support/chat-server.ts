import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"

export interface ChatBody {
  model: string
  messages: { role: string; content: string }[]
  temperature: number
  seed: number
}

export interface ChatServer {
  url: string
  /** Every request so far. */
  bodies: ChatBody[]
  close(): void
}

/**
 * A chat server on 127.0.0.1: `answer` gives the text of a reply, or writes to the response itself and gives undefined.
 */
export async function chatServer(
  answer: (body: ChatBody, response: ServerResponse, count: number) => string | undefined,
): Promise<ChatServer> {
  const bodies: ChatBody[] = []
  const server = createServer((request, response) => {
    let text = ""
    request.on("data", (chunk) => {
      text += chunk
    })
    request.on("end", () => {
      if (request.method === "GET") return response.writeHead(404).end() // no list of models
      const body: ChatBody = JSON.parse(text)
      bodies.push(body)
      const content = answer(body, response, bodies.length)
      if (content === undefined) return
      response.writeHead(200, { "content-type": "application/json" })
      response.end(
        JSON.stringify({
          choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
          usage: { prompt_tokens: 10, completion_tokens: 2, total_tokens: 12 },
        }),
      )
    })
  })
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    bodies,
    close: () => {
      server.closeAllConnections()
      server.close()
    },
  }
}
