import { tf } from "../../lib/device/tf"
import type { PairScores } from "../../lib/train/losses"

const { log } = Math
export const [ln2, ln3, ln6] = [log(2), log(3), log(6)]

/**
 * Two pairs whose odds are simple, with β = 1/2.
 *            s chosen   s rejected   β (s_c - s_r)   σ of it    tokens    mean log-prob
 *   first     ln 3       -ln 3         ln 3           3/4       4 and 3   ln 1/2 and ln 1/3
 *   second   -3 ln 2     -ln 2        -ln 2           1/3       2 and 2   ln 1/3 and ln 1/2
 */
export const simpleOdds = (): PairScores => ({
  chosen: tf.tensor1d([ln3, -3 * ln2]),
  rejected: tf.tensor1d([-ln3, -ln2]),
  chosenLogProb: tf.tensor1d([-4 * ln2, -2 * ln3]),
  rejectedLogProb: tf.tensor1d([-3 * ln3, -2 * ln2]),
  chosenTokens: tf.tensor1d([4, 2]),
  rejectedTokens: tf.tensor1d([3, 2]),
})
