import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { useBackend } from "../../lib/device/tf"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { serverScorer } from "../../lib/engine/server-scorer"
import { RefusedError } from "../../lib/errors"
import { checkServerWeightings, weightsOf } from "../../lib/musc/weigh"
import { scoringBy } from "../../lib/runs/scoring-server"
import { responseLogProbs } from "../support/log-probs"
import { fixture } from "../support/tensors"

let local: LocalModel
let url = ""
let way: "prompt_logprobs" | "echo" | "written" | "none" | "null" | "chat" | "refused" = "prompt_logprobs"
/** Tokens as the server tells them, where it does. */
let told: ((id: number) => string) | undefined
/** Calls that fail before the server answers. */
let failing = 0
/** Answers as vLLM does (a record of ids for each place) or as older servers do (`echo`). */
const server = createServer((request, response) => {
  let text = ""
  request.on("data", (part) => {
    text += part
  })
  request.on("end", async () => {
    response.setHeader("content-type", "application/json")
    if (failing-- > 0) {
      response.statusCode = 500
      return response.end(JSON.stringify({ error: { message: "engine is busy" } }))
    }
    const { prompt, prompt_logprobs, echo } = JSON.parse(text)
    if (way === "chat" || way === "refused") {
      response.statusCode = way === "chat" ? 404 : 400
      const message = way === "chat" ? "Not Found" : "echo with logprobs is not supported for this model"
      return response.end(JSON.stringify({ error: { message } }))
    }
    const values = [null, ...(await responseLogProbs(local, prompt.slice(0, 1), prompt.slice(1)))]
    if (way === "echo" && prompt_logprobs !== undefined) {
      response.statusCode = 400
      return response.end(JSON.stringify({ error: { message: "unknown field prompt_logprobs" } }))
    }
    const places: (Record<number, object> | null)[] = values.map((logprob, i) =>
      i ? { 5000: { logprob: -1 }, [prompt[i]]: { logprob, rank: 1, decoded_token: told?.(prompt[i]) } } : null,
    )
    if (way === "null") places[2] = { [prompt[2]]: { logprob: null, rank: 1 } }
    const written = { text: "", logprobs: { token_logprobs: Array(500).fill(-1) } }
    const choice =
      way === "written" && echo
        ? written
        : way === "none" || way === "written"
          ? { text: "" }
          : echo
            ? { text: "", logprobs: { token_logprobs: values, tokens: told && prompt.map(told) } }
            : { text: "", prompt_logprobs: places }
    response.end(JSON.stringify({ choices: [choice] }))
  })
})
beforeAll(async () => {
  await useBackend()
  local = openLocal(fixture("llama"))
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
})
afterAll(() => {
  server.closeAllConnections()
  server.close()
})

const user = (content: string) => [{ role: "user" as const, content }]
const request = {
  clean: user("Write of rain."),
  noised: user("Write."),
  empty: user(""),
  responses: ["Rain falls.", "Snow"],
}
const scorer = () => serverScorer({ model: "m", baseURL: url, maxRetries: 0, tokenizer: local.tokenizer })

describe("log-probs of a server", () => {
  it.each(["prompt_logprobs", "echo"] as const)("are those of the model in process: %s", async (by) => {
    way = by
    const engine = local.engine()
    const expected = await engine.score(request)
    engine.dispose()
    const signals = await scorer().score(request)
    for (const [i, { tokens, logprob, logprob_noised, logprob_empty, kl, entropy }] of signals.entries()) {
      expect(tokens).toEqual(expected[i]!.tokens)
      for (const [t, value] of logprob.entries()) expect(value).toBeCloseTo(expected[i]!.logprob[t]!, 4)
      for (const [t, value] of logprob_noised.entries()) expect(value).toBeCloseTo(expected[i]!.logprob_noised[t]!, 4)
      for (const [t, value] of logprob_empty.entries()) expect(value).toBeCloseTo(expected[i]!.logprob_empty[t]!, 4)
      expect([kl, entropy]).toEqual([[], []])
    }
    const [chosen, rejected] = signals as [(typeof signals)[0], (typeof signals)[0]]
    for (const name of ["contrast", "pmi", "logprob", "tis-dpo", "ratio", "uniform"] as const) {
      const exact = weightsOf({ chosen: expected[0]!, rejected: expected[1]! }, name)
      const weights = weightsOf({ chosen, rejected }, name)
      for (const [t, value] of weights.chosen.entries()) expect(value).toBeCloseTo(exact.chosen[t]!, 3)
    }
    for (const name of ["kl", "entropy", "bi-kl", "kl-reverse"] as const)
      expect(() => weightsOf({ chosen, rejected }, name)).toThrow(/got log-probs alone.*whole vocabulary.*--torch/)
  })

  it("are asked for again after a failure, which is said once for all calls under way", async () => {
    way = "prompt_logprobs"
    failing = 4
    const notes: string[] = []
    const model = { dir: fixture("llama"), tokenizer: local.tokenizer }
    const server = { model: "m", baseURL: url, maxRetries: 4 }
    const { engine } = await scoringBy(server, { id: "m" }, model, { onNote: (line) => notes.push(line) })
    expect((await engine.score(request)).map(({ logprob }) => logprob.length > 0)).toEqual([true, true])
    expect(notes).toEqual(["signals: retrying after: 500 engine is busy"])
  })

  it("are refused where they are none, or a server tells none", async () => {
    way = "null"
    await expect(scorer().score(request)).rejects.toThrow(/id 3 of a prompt must have a log-prob, got null/)
    way = "none"
    await expect(scorer().score(request)).rejects.toThrow(/must return log-probs of the prompt .*--torch/)
    way = "written" // those of what it wrote in place of the prompt
    await expect(scorer().score(request)).rejects.toThrow(/must return log-probs of the prompt .*got none; .*--torch/)
    way = "chat" // it has no other path, and not a wrong model
    await expect(scorer().score(request)).rejects.toThrow(
      /\/completions must return log-probs .*got 404 Not Found; .*--torch/,
    )
    way = "refused" // that is no row's fault
    const error = await scorer()
      .score(request)
      .catch((caught: unknown) => caught)
    expect(error).not.toBeInstanceOf(RefusedError)
    expect(error).toMatchObject({ message: expect.stringMatching(/echo with logprobs is not supported.*--torch/) })
  })

  it.each(["prompt_logprobs", "echo"] as const)("are refused of a model with other tokens: %s", async (by) => {
    way = by
    told = (id) => `other${id}`
    await expect(scorer().score(request)).rejects.toThrow(/must serve the model .*--model.*got other tokens: id \d+ is/)
    told = (id) => ` ${local.tokenizer.decode([id])}` // blanks do not count
    await expect(scorer().score(request)).resolves.toHaveLength(2)
    told = undefined
  })

  it("come with a note where the server names another checkpoint", async () => {
    way = "prompt_logprobs"
    const notes: string[] = []
    const model = { dir: fixture("llama"), tokenizer: local.tokenizer }
    const server = { model: "m", baseURL: url }
    for (const root of ["org/Other-7B", "/models/llama", undefined]) {
      const listed = { id: "m", root }
      await scoringBy(server, { id: "m", listed }, model, { onNote: (line) => notes.push(line) })
    }
    expect(notes).toEqual([
      expect.stringMatching(/^note: the server says that it serves org\/Other-7B, and --model is llama/),
    ])
  })

  it("do not do for the weightings that need distributions, which is said before anything is asked", () => {
    expect(() => checkServerWeightings(["uniform", "kl", "entropy"])).toThrow(
      /^weightings: must do with the log-probs of a server, got kl, entropy; .*--torch; or --set weightings=/,
    )
    checkServerWeightings(["uniform", "contrast", "pmi", "logprob", "tis-dpo", "ratio", "random"])
  })
})
