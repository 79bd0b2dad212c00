import type { Tensor } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"

/**
 * `tf.customGrad` with types: `backward` gives the gradient of each of `inputs`, from dy and what `forward` saved. A
 * tensor that was made inside the taped function is gone by then unless it was saved. What was saved, dy and the
 * intermediates of `backward` are freed when it returns: tfjs itself would hold them until the whole gradient is done.
 * `forward` is told whether a gradient will be taken at all.
 */
export function withGradient<T extends Tensor>(
  inputs: readonly Tensor[],
  forward: (save: (tensors: Tensor[]) => void, taped: boolean) => T,
  backward: (dy: T, saved: Tensor[]) => Tensor[],
): T {
  const taped = tf.engine().state.gradientDepth > 0
  const op = tf.customGrad((...args: unknown[]) => ({
    value: forward(args[args.length - 1] as (tensors: Tensor[]) => void, taped) as Tensor,
    gradFunc: (dy: Tensor, saved: Tensor[]) => {
      const grads = tf.tidy(() => backward(dy as T, saved))
      tf.dispose([dy, saved])
      return grads
    },
  }))
  return op(...inputs) as T
}

/**
 * `f(input)`, keeping nothing but `input` for the gradient: the backward pass computes the rest again (gradient
 * checkpointing, Chen et al. 2016). `input` is a tree of objects, lists and tensors, and `f` uses no other tensor that
 * was made on the tape.
 */
export function recomputed<Input, T extends Tensor>(input: Input, f: (input: Input) => T): T {
  const tensors: Tensor[] = []
  mapTensors(input, (tensor) => {
    tensors.push(tensor)
    return tensor
  })
  return withGradient(
    tensors,
    (save) => {
      save(tensors)
      return f(input)
    },
    (dy, saved) => {
      let at = 0
      const again = mapTensors(input, () => saved[at++]!)
      const differentiable = saved.filter(({ dtype }) => dtype === "float32")
      const grads = gradients(() => f(again), differentiable, dy)
      // Indices and frozen weights get no gradient, and nobody asks for one.
      return saved.map((tensor) => grads[differentiable.indexOf(tensor)] ?? tf.scalar(0))
    },
  )
}

/** Gradients of y = f() by `xs` for dy, null where y does not depend on one. May be called from a pass on the tape. */
export function gradients(f: () => Tensor, xs: Tensor[], dy: Tensor): (Tensor | null)[] {
  // tfjs has one tape, and the inner call ends by clearing it.
  const { state } = tf.engine()
  const outer = state.activeTape
  state.activeTape = []
  try {
    return tf.engine().gradients(f, xs, dy, true).grads
  } finally {
    // Where an outer tape is being written, the inner one is left as it is.
    if (state.gradientDepth > 0) tf.dispose(state.activeTape?.map(({ saved }) => saved) ?? [])
    state.activeTape = outer
  }
}

/** A tree of objects and lists with `change(tensor)` instead of each tensor. */
export function mapTensors<Tree>(tree: Tree, change: (tensor: Tensor) => Tensor): Tree {
  if (tree instanceof tf.Tensor) return change(tree) as Tree
  if (Array.isArray(tree)) return tree.map((part) => mapTensors(part, change)) as Tree
  if (typeof tree !== "object" || tree === null) return tree
  return Object.fromEntries(Object.entries(tree).map(([name, part]) => [name, mapTensors(part, change)])) as Tree
}
