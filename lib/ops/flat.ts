import type { Tensor, Tensor1D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { fused, fusedFlatten, fusedUnflatten } from "./fused"

/**
 * Many small tensors as one vector and back. Those with rows of one shape lie together, so that a few joins serve all: a
 * reshape of its own for each tensor costs more than the arithmetic between.
 */

type Shaped = Pick<Tensor, "shape" | "size">

/** Values from which on a tensor lies alone: to join it with others first would be to copy it twice. */
const large = 2 ** 20

/** Places of tensors by the shape of their rows, in the order in which the vector holds them. */
function groups(tensors: readonly Shaped[]): number[][] {
  const byRow = new Map<string, number[]>()
  tensors.forEach(({ shape, size }, i) => {
    const row = size < large ? shape.slice(1).join() : `tensor ${i}`
    byRow.set(row, [...(byRow.get(row) ?? []), i])
  })
  return [...byRow.values()]
}

const rowsOf = ({ shape }: Shaped) => shape[0] ?? 1

/** All values of `tensors`, which have at least one axis. */
export function flatten(tensors: readonly Tensor[]): Tensor1D {
  const backend = fused()
  if (backend)
    return fusedFlatten(
      backend,
      groups(tensors)
        .flat()
        .map((i) => tensors[i]!),
    )
  return tf.tidy(() => {
    const parts = groups(tensors).map((group) => tf.reshape(tf.concat(group.map((i) => tensors[i]!)), [-1]))
    return tf.concat(parts) as Tensor1D
  })
}

/** The tensors that `flatten` made `vector` of, in the shapes of `like`. */
export function unflatten(vector: Tensor1D, like: readonly Shaped[]): Tensor[] {
  const backend = fused()
  if (backend) {
    const order = groups(like).flat()
    const made = fusedUnflatten(
      backend,
      vector,
      order.map((i) => like[i]!.shape),
    )
    return like.map((_, i) => made[order.indexOf(i)]!)
  }
  return tf.tidy(() => {
    const grouped = groups(like)
    const sizes = grouped.map((group) => group.reduce((sum, i) => sum + like[i]!.size, 0))
    const out: Tensor[] = []
    tf.split(vector, sizes).forEach((part, g) => {
      const group = grouped[g]!
      const rows = group.map((i) => rowsOf(like[i]!))
      const whole = tf.reshape(part, [-1, ...like[group[0]!]!.shape.slice(1)])
      tf.split(whole, rows).forEach((tensor, j) => {
        out[group[j]!] = tensor
      })
    })
    return out
  })
}
