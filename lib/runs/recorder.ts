import type { TokenSignals } from "../data/schema"
import type { GenerateRequest, ScoreRequest, Scorer } from "../engine/engine"

/** An engine that writes nothing and keeps what it was asked. */
export interface Recorder extends Scorer {
  readonly requests: GenerateRequest[]
  readonly scored: ScoreRequest[]
}

/** A new recorder. Texts are empty, signals too. */
export function recorder(): Recorder {
  const requests: GenerateRequest[] = []
  const scored: ScoreRequest[] = []
  const list: number[] = []
  const nothing: TokenSignals = {
    tokens: [],
    ...{ logprob: list, logprob_noised: list, logprob_empty: list },
    ...{ entropy: list, entropy_noised: list, kl: list, kl_reverse: list },
  }
  return {
    name: "nothing",
    concurrency: 64,
    requests,
    scored,
    async generate(request) {
      requests.push(request)
      return { text: "", tokens: 0, finish: "stop" }
    },
    async score(request) {
      scored.push(request)
      return request.responses.map(() => nothing)
    },
  }
}
