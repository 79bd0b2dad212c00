// A server as `--serve` starts it: serve-stub.cjs MODEL --port N [--lora-modules name=path ...]. It answers with the name of
// the model that was asked. With FAIL it says why and ends. With SEED its answers name the seed, so that no two are alike. It
// tells log-probs of prompts as vLLM does, made up. With BUSY it refuses the first three calls.
const http = require("node:http")
const args = process.argv.slice(2)
if (args.includes("FAIL")) {
  console.error("CUDA out of memory: no such device")
  process.exit(3)
}
const port = Number(args[args.indexOf("--port") + 1])
const at = args.indexOf("--lora-modules")
const modules = at < 0 ? [] : args.slice(at + 1).map((word) => word.split("=")[0])
let busy = args.includes("BUSY") ? 3 : 0
const send = (response, value) => {
  response.setHeader("content-type", "application/json")
  response.end(JSON.stringify(value))
}
http
  .createServer((request, response) => {
    if (request.url === "/v1/models") return send(response, { data: [args[0], ...modules].map((id) => ({ id })) })
    let text = ""
    request.on("data", (chunk) => {
      text += chunk
    })
    request.on("end", () => {
      if (busy-- > 0) response.statusCode = 500
      if (response.statusCode === 500) return send(response, { error: { message: "engine is busy" } })
      const { model, messages, seed, prompt } = JSON.parse(text)
      if (prompt) {
        const prompt_logprobs = prompt.map((id, i) => (i ? { [id]: { logprob: -1 / i } } : null))
        return send(response, { choices: [{ text: "", prompt_logprobs }] })
      }
      if (messages.at(-1).content === "die") process.exit(9)
      const content = args.includes("SEED") ? `Answer ${seed}.` : `${model} of ${process.pid}`
      send(response, {
        choices: [{ message: { role: "assistant", content }, finish_reason: "stop" }],
        usage: { prompt_tokens: 1, completion_tokens: 3 },
      })
    })
  })
  .listen(port, "127.0.0.1", () => console.log("ready"))
