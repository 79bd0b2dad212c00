import type { Tensor } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"

/**
 * `tf.customGrad` with types: `backward` gives the gradient of each of `inputs`, from dy and what `forward` saved. A
 * tensor that was made inside the taped function is gone by then unless it was saved. What was saved, dy and the
 * intermediates of `backward` are freed when it returns: tfjs itself would hold them until the whole gradient is done.
 */
export function withGradient<T extends Tensor>(
  inputs: readonly Tensor[],
  forward: (save: (tensors: Tensor[]) => void) => T,
  backward: (dy: T, saved: Tensor[]) => Tensor[],
): T {
  const op = tf.customGrad((...args: unknown[]) => ({
    value: forward(args[args.length - 1] as (tensors: Tensor[]) => void) as Tensor,
    gradFunc: (dy: Tensor, saved: Tensor[]) => {
      const grads = tf.tidy(() => backward(dy as T, saved))
      tf.dispose([dy, saved])
      return grads
    },
  }))
  return op(...inputs) as T
}

/** Whether operations are recorded, for a gradient to be taken. */
export const isTaped = (): boolean => tf.engine().state.gradientDepth > 0
