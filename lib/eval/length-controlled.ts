/** One comparison with a baseline, as the length-controlled model sees it. */
export interface Comparison {
  /**
   * tanh of the length difference over its standard deviation, instruction difficulty, 1 for rows of the model itself.
   */
  x: readonly [number, number, number]
  /** Preference for the model, in [0, 1]. */
  y: number
  weight: number
}

type Vector = [number, number, number]

/** The grid that cross-validation chooses the strength from: ten values, logarithmic. */
const STRENGTHS: readonly number[] = Array.from({ length: 10 }, (_, i) => 10 ** (-4 + (8 * i) / 9))
const FOLDS = 5

/**
 * The coefficients that minimise |b|_1 + C * sum w (-y log p - (1 - y) log(1 - p)), p = 1 / (1 + exp(-b x)): logistic
 * regression on soft labels, no intercept. Proximal Newton steps, each solved by coordinate descent, halved while the
 * objective grows beyond rounding. Ends when no coordinate violates the optimality conditions by more than 1e-9 of
 * C * sum w, so that the result depends on no seed and no order of rows (liblinear, used officially, stops at 1e-4).
 */
export function fitLogistic(rows: readonly Comparison[], strength: number, start: Vector = [0, 0, 0]): Vector {
  let b = start
  let { loss, gradient, hessian } = derivatives(rows, strength, b)
  const tolerance = 1e-9 * (1 + strength * rows.reduce((sum, { weight }) => sum + weight, 0))
  for (let step = 0; step < 100 && violation(b, gradient) > tolerance; step++) {
    const direction = newtonStep(b, gradient, hessian)
    let next = b
    for (let size = 1; size > 1e-10; size /= 2) {
      const candidate = b.map((value, j) => value + size * direction[j]!) as Vector
      const there = derivatives(rows, strength, candidate)
      const now = loss + norm(b)
      if (there.loss + norm(candidate) > now + 1e-12 * Math.abs(now)) continue
      next = candidate
      ;({ loss, gradient, hessian } = there)
      break
    }
    if (next === b) break
    b = next
  }
  return b
}

const norm = (b: Vector) => Math.abs(b[0]) + Math.abs(b[1]) + Math.abs(b[2])
const dot = (a: readonly number[], b: readonly number[]) => a[0]! * b[0]! + a[1]! * b[1]! + a[2]! * b[2]!

/**
 * The smooth part: value, gradient [3] and Hessian [3][3]. Sums stand in locals because intervals call this very often.
 */
function derivatives(rows: readonly Comparison[], strength: number, b: Vector) {
  const [b0, b1, b2] = b
  let [loss, g0, g1, g2] = [0, 0, 0, 0]
  let [h00, h01, h02, h11, h12, h22] = [0, 0, 0, 0, 0, 0]
  for (const { x, y, weight } of rows) {
    const x0 = x[0]
    const x1 = x[1]
    const x2 = x[2]
    const z = x0 * b0 + x1 * b1 + x2 * b2
    const e = Math.exp(-Math.abs(z))
    const p = z >= 0 ? 1 / (1 + e) : e / (1 + e)
    const scale = strength * weight
    // -y log p - (1 - y) log(1 - p) = log(1 + exp(z)) - y z
    loss += scale * (Math.max(z, 0) + Math.log1p(e) - y * z)
    const slope = scale * (p - y)
    g0 += slope * x0
    g1 += slope * x1
    g2 += slope * x2
    const curve = scale * p * (1 - p)
    h00 += curve * x0 * x0
    h01 += curve * x0 * x1
    h02 += curve * x0 * x2
    h11 += curve * x1 * x1
    h12 += curve * x1 * x2
    h22 += curve * x2 * x2
  }
  const gradient: Vector = [g0, g1, g2]
  const hessian: Vector[] = [
    [h00, h01, h02],
    [h01, h11, h12],
    [h02, h12, h22],
  ]
  return { loss, gradient, hessian }
}

/** How far a coordinate is from optimal: the smallest subgradient there is, in absolute value. */
function violation(b: Vector, gradient: Vector): number {
  return Math.max(
    ...b.map((value, j) => {
      const g = gradient[j]!
      return value === 0 ? Math.max(Math.abs(g) - 1, 0) : Math.abs(g + Math.sign(value))
    }),
  )
}

/** The minimum of the quadratic model plus |b + d|_1, by coordinate descent. */
function newtonStep(b: Vector, gradient: Vector, hessian: readonly Vector[]): Vector {
  const d: Vector = [0, 0, 0]
  for (let sweep = 0; sweep < 1000; sweep++) {
    let moved = 0
    for (let j = 0; j < 3; j++) {
      const h = hessian[j]![j]! + 1e-12
      const at = b[j]! + d[j]!
      const target = at - (gradient[j]! + dot(hessian[j]!, d)) / h
      const shrunk = Math.sign(target) * Math.max(Math.abs(target) - 1 / h, 0)
      moved = Math.max(moved, Math.abs(shrunk - at))
      d[j] = shrunk - b[j]!
    }
    if (moved < 1e-14 * (1 + norm(b))) break
  }
  return d
}

/** Mean weighted log loss of the rows under these coefficients, p kept within 1e-15 of 0 and 1. */
function logLoss(rows: readonly Comparison[], b: Vector): number {
  const sum = rows.reduce((total, { x, y, weight }) => {
    const p = Math.min(Math.max(1 / (1 + Math.exp(-dot(x, b))), 1e-15), 1 - 1e-15)
    return total - weight * (y * Math.log(p) + (1 - y) * Math.log(1 - p))
  }, 0)
  return sum / rows.length
}

/**
 * Fits with the strength C that has the smallest log loss over five folds, the mean of the folds' own means. Row r of n
 * is in fold (n - 1 - r) mod 5, which is what GroupKFold gives for groups of equal size when their order is kept.
 */
export function fitLengthControlled(rows: readonly Comparison[]): { coefficients: Vector; strength: number } {
  const losses = STRENGTHS.map(() => 0)
  const foldOf = (r: number) => (rows.length - 1 - r) % FOLDS
  for (let fold = 0; fold < FOLDS; fold++) {
    const train = rows.filter((_, r) => foldOf(r) !== fold)
    const test = rows.filter((_, r) => foldOf(r) === fold)
    let b: Vector = [0, 0, 0]
    for (const [i, strength] of STRENGTHS.entries()) {
      b = fitLogistic(train, strength, b)
      losses[i]! += logLoss(test, b) / FOLDS
    }
  }
  const strength = STRENGTHS[losses.indexOf(Math.min(...losses))] ?? Number.NaN
  return { coefficients: fitLogistic(rows, strength), strength }
}

/** A comparison of the evaluated model: null preference where the judge's reply could not be read. */
export interface ModelRow {
  preference: number | null
  /** Code points of the baseline's output minus those of the model's. */
  lengthDifference: number
  difficulty: number
}

/** A stored comparison of a gamed baseline (concise or verbose). */
export interface GamedRow {
  /** In [0, 1]; null rows are not fitted. */
  preference: number | null
  /** Length difference in its own standard deviations. */
  lengthDifference: number
  difficulty: number
}

/** Weight of the gamed rows: .2, shared by two gamed baselines. */
const GAMED_WEIGHT = 0.2 / 2

/**
 * The length-controlled win rate of AlpacaEval 2 (length_controlled_v1) in [0, 1]: a logistic model of the preference
 * on length difference, instruction difficulty and a constant of the model, fitted on its comparisons together with
 * those of the gamed baselines; then the mean prediction at no length difference. Rows without a preference are
 * predicted as well, but not fitted. NaN where the lengths have no spread or there are fewer rows than folds.
 */
export function lengthControlledRate(own: readonly ModelRow[], gamed: readonly GamedRow[]): number {
  const mean = own.reduce((sum, { lengthDifference }) => sum + lengthDifference, 0) / own.length
  const squares = own.reduce((sum, { lengthDifference }) => sum + (lengthDifference - mean) ** 2, 0)
  const deviation = Math.sqrt(squares / (own.length - 1))
  const rows: Comparison[] = []
  for (const { preference: y, lengthDifference, difficulty } of gamed) {
    if (y !== null) rows.push({ x: [Math.tanh(lengthDifference), difficulty, 0], y, weight: GAMED_WEIGHT })
  }
  for (const { preference: y, lengthDifference, difficulty } of own) {
    if (y !== null) rows.push({ x: [Math.tanh(lengthDifference / deviation), difficulty, 1], y, weight: 1 })
  }
  if (!(deviation > 0) || rows.length < FOLDS) return Number.NaN
  const { coefficients } = fitLengthControlled(rows)
  const rate = ({ difficulty }: ModelRow) => 1 / (1 + Math.exp(-dot([0, difficulty, 1], coefficients)))
  return own.reduce((sum, row) => sum + rate(row), 0) / own.length
}
