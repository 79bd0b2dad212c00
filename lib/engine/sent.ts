import { tf } from "../device/tf"
import type { Lora } from "../model/lora"

/** Adapters as they travel between processes: plain data with Float32Arrays. */

export interface SentLora extends Omit<Lora, "params"> {
  params: Record<string, { shape: number[]; values: Float32Array }>
}

export async function sentLora(lora: Lora): Promise<SentLora> {
  const params: SentLora["params"] = {}
  for (const [name, tensor] of Object.entries(lora.params)) {
    params[name] = { shape: tensor.shape, values: (await tensor.data()) as Float32Array }
  }
  return { ...lora, params }
}

/** The adapter as tensors; the caller disposes them. */
export const receivedLora = (lora: SentLora): Lora => ({
  ...lora,
  params: Object.fromEntries(
    Object.entries(lora.params).map(([name, { shape, values }]) => [name, tf.tensor(values, shape)]),
  ),
})
