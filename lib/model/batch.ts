/** Splits the items of one optimizer step into micro-batches of similar lengths whose padded size fits the budget. */
export function microBatches<Item>(
  items: readonly Item[],
  tokensOf: (item: Item) => number,
  tokenBudget: number,
): Item[][] {
  const sorted = [...items].sort((a, b) => tokensOf(b) - tokensOf(a))
  const batches: Item[][] = []
  for (const item of sorted) {
    const current = batches[batches.length - 1]
    // The first item is the longest, so it decides the padded length.
    if (current && (current.length + 1) * tokensOf(current[0]!) <= tokenBudget) current.push(item)
    else batches.push([item])
  }
  return batches
}

/**
 * As `microBatches`, but `parts` of them or more: as many as the budget asks for, rounded up to a power of two, so that
 * they can be computed in pairs. The largest one is as small as cutting in the order of lengths allows.
 */
export function evenBatches<Item>(
  items: readonly Item[],
  tokensOf: (item: Item) => number,
  tokenBudget: number,
  parts: number,
): Item[][] {
  const cut = (budget: number) => microBatches(items, tokensOf, budget)
  const wanted = 2 ** Math.ceil(Math.log2(Math.max(1, parts, cut(tokenBudget).length)))
  let least = 1
  let most = Math.min(tokenBudget, items.length * Math.max(...items.map(tokensOf)))
  while (least < most) {
    const middle = Math.floor((least + most) / 2)
    if (cut(middle).length <= wanted) most = middle
    else least = middle + 1
  }
  return cut(most)
}

/** Two batches at a time, to be computed side by side, or one. */
export const grouped = <Item>(batches: readonly Item[][], sideBySide: boolean): Item[][][] =>
  batches.flatMap((batch, i) => {
    if (!sideBySide) return [[batch]]
    return i % 2 ? [] : [batches.slice(i, i + 2)]
  })
