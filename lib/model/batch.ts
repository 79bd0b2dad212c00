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
