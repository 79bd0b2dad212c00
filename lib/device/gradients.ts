import { existsSync } from "node:fs"
import { join } from "node:path"
import { getGradient } from "@tensorflow/tfjs-core"

/**
 * Registers the gradients of all TensorFlow.js operations. tfjs-core ships them only as files that Node cannot load, so
 * the build makes one file of them; in a checkout, which has no build, they come from the union package.
 */
export function registerGradients(): void {
  if (getGradient("Tanh")) return
  const built = join(__dirname, "tfjs-gradients.cjs")
  require(existsSync(built) ? built : "@tensorflow/tfjs")
}
