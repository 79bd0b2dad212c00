import type { Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { withGradient } from "./gradient"
import { kernel, kernelPair } from "./kernel"
import { bf16Parts, matMul } from "./matmul"
import { operation } from "./operation"

export type Activation = "silu" | "gelu_tanh"

type Gated = (gate: Tensor2D, up: Tensor2D, activation: Activation) => Tensor2D

/** act(gate) · up, elementwise: SwiGLU or GeGLU with the tanh form of GELU (Shazeer 2020). */
export const gated = operation<Gated>(({ kernels }) => {
  if (kernels !== "none") return kernelGated
  return (gate, up, activation) => (activation === "silu" ? swiglu(gate, up) : geglu(gate, up))
})

/** act(x · gate) · (x · up): x [M, D], gate and up [D, F] -> [M, F]. Without a gradient. */
export const gatedProduct = operation<(x: Tensor2D, gate: Tensor2D, up: Tensor2D, activation: Activation) => Tensor2D>(
  ({ kernels }) =>
    kernels === "amx"
      ? (x, gate, up, activation) =>
          kernel("MuscGatedProduct", [Number(activation !== "silu"), bf16Parts()], [x, gate, up]) as Tensor2D
      : (x, gate, up, activation) => gated(matMul(x, gate), matMul(x, up), activation),
)

function kernelGated(gate: Tensor2D, up: Tensor2D, activation: Activation): Tensor2D {
  const settings = [Number(activation !== "silu")]
  return withGradient(
    [gate, up],
    (save) => {
      save([gate, up])
      return kernel("MuscGated", settings, [gate, up]) as Tensor2D
    },
    (dy, saved) => kernelPair("MuscGatedGradient", settings, [dy, ...saved]),
  )
}

function swiglu(gate: Tensor2D, up: Tensor2D): Tensor2D {
  return withGradient(
    [gate, up],
    (save) => {
      const s = tf.sigmoid(gate)
      const gs = tf.mul(gate, s)
      const y = tf.mul(gs, up) as Tensor2D
      save([up, s, gs, y])
      return y
    },
    (dy, [u, s, gs, y]) => {
      // silu' = s + g s (1 - s), so silu' u = y + s (u - y)
      const slope = tf.add(y!, tf.mul(s!, tf.sub(u!, y!)))
      return [tf.mul(dy, slope), tf.mul(dy, gs!)]
    },
  )
}

function geglu(gate: Tensor2D, up: Tensor2D): Tensor2D {
  const c = Math.sqrt(2 / Math.PI)
  return withGradient(
    [gate, up],
    (save) => {
      const t = tf.tanh(tf.mul(tf.mul(gate, tf.add(tf.mul(tf.square(gate), 0.044715), 1)), c))
      const half = tf.mul(tf.add(t, 1), 0.5) // gelu = gate · half
      save([gate, up, half])
      return tf.mul(tf.mul(gate, half), up) as Tensor2D
    },
    (dy, [g, u, half]) => {
      // d gelu = half + gate · (1 - t²)/2 · c (1 + 3 · 0.044715 gate²), with (1 - t²)/2 = 2 half (1 - half)
      const inner = tf.mul(tf.add(tf.mul(tf.square(g!), 3 * 0.044715), 1), 2 * c)
      const slope = tf.add(half!, tf.mul(tf.mul(g!, tf.mul(half!, tf.sub(1, half!))), inner))
      return [tf.mul(tf.mul(dy, u!), slope), tf.mul(dy, tf.mul(g!, half!))]
    },
  )
}
