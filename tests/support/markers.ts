import { figureSvg } from "../../lib/plots/picture"
import type { Figure } from "../../lib/plots/theme"

/** Pixels between the two nearest rows of markers. @throws Error for another number of markers than `n` */
export async function leastDistance(figure: Figure, n: number): Promise<number> {
  const svg = await figureSvg(figure, { width: 800 })
  const places = [...svg.matchAll(/class="point" transform="translate\([\d.]+,([\d.]+)\)"/g)]
  if (places.length !== n) throw new Error(`${places.length} markers, not ${n}`)
  const heights = places.map(([, y]) => Number(y)).sort((a, b) => a - b)
  return Math.min(...heights.slice(1).map((y, i) => y - heights[i]!))
}
