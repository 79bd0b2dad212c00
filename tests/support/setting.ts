import { tf } from "../../lib/device/tf"
import { initLora, type Lora } from "../../lib/model/lora"
import type { Model } from "../../lib/model/transformer"
import { initModel } from "../../lib/model/weights"
import { randomValues, tinyConfig } from "./tensors"

/** Model and adapter; with `moved` the adapter's B is no longer zero. */
export function setting(moved: boolean): { model: Model; lora: Lora } {
  const model = initModel(tinyConfig(), 3, 0.3)
  const lora = initLora(model.config, { rank: 4, alpha: 8, seed: 5 })
  if (moved) {
    for (const [name, old] of Object.entries(lora.params).filter(([key]) => key.endsWith(".B"))) {
      lora.params[name] = tf.tensor(randomValues(old.size, 0.3, name), old.shape)
      old.dispose()
    }
  }
  return { model, lora }
}
export const free = ({ model, lora }: { model: Model; lora: Lora }) => tf.dispose([model.params, lora.params])
