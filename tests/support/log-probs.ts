import { tf } from "../../lib/device/tf"
import type { LocalModel } from "../../lib/engine/local"
import { responseLogProbs as logProbs, pack } from "../../lib/model/logprobs"
import { bind, release } from "../../lib/model/lora"

/** log p of each id of a response behind a prompt, by a model in process. */
export async function responseLogProbs(
  { model }: LocalModel,
  prompt: readonly number[],
  response: readonly number[],
): Promise<number[]> {
  const bound = bind(model, { lora: null })
  const batch = pack([{ prompt: [...prompt], responses: [[...response]] }])
  const values = tf.tidy(() => [...logProbs(bound, batch).dataSync()])
  release(bound)
  return values
}
