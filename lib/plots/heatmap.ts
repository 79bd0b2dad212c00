import { signed } from "../data/numbers"
import type { TokenSignals, WeighedRow } from "../data/schema"
import { InputError } from "../errors"
import { MAX_WEIGHT } from "../musc/weigh"
import { besideCell, dataBlock, type Html, html, type Part } from "./html"
import { answerRgb } from "./theme"

type Answer = "chosen" | "rejected"

const LEVELS = 40
const level = (weight: number): number => Math.round((Math.min(MAX_WEIGHT, Math.max(0, weight)) / MAX_WEIGHT) * LEVELS)

/** Opacity of the shade of a weight: 0 for 0, .7 for 2, in proportion between, in steps of a fortieth. */
export const shade = (weight: number): number => Number(((0.7 * level(weight)) / LEVELS).toFixed(4))

/**
 * Inline style of a token: shaded by weight; from 1.25 underlined and from 1.75 bold, to be read without colours too.
 */
export function tokenStyle(weight: number, answer: Answer): string {
  const rounded = (level(weight) / LEVELS) * MAX_WEIGHT
  const heavy = `${rounded >= 1.25 ? ";text-decoration:underline" : ""}${rounded >= 1.75 ? ";font-weight:700" : ""}`
  return `background:rgba(${answerRgb[answer].join(",")},${shade(weight)})${heavy}`
}

/** A number of nats with its sign, short. */
const nats = (value: number): string => signed(value, Math.abs(value) < 0.1 ? 3 : 2, "")

/** Every signal of token `t`, a few a line, in nats. A server gives neither entropy nor KL: their lines are left out. */
function signalLines(s: TokenSignals, t: number): string[] {
  const at = (values: readonly number[]) => nats(values[t]!)
  const minus = (a: readonly number[], b: readonly number[]) => nats(a[t]! - b[t]!)
  return [
    `log p: clean ${at(s.logprob)}, noised ${at(s.logprob_noised)}, empty ${at(s.logprob_empty)} nats`,
    `contrast ${minus(s.logprob, s.logprob_noised)}, pmi ${minus(s.logprob, s.logprob_empty)} nats`,
    ...(s.entropy.length ? [`entropy: clean ${at(s.entropy)}, noised ${at(s.entropy_noised)} nats`] : []),
    ...(s.kl.length ? [`KL(clean‖noised) ${at(s.kl)}, KL(noised‖clean) ${at(s.kl_reverse)} nats`] : []),
  ]
}

export interface MapOptions {
  /** Weightings to name for each token; the first one is drawn. By default all of the row. */
  weightings?: readonly string[]
  /** Whether the weight stands in small below each token. */
  numbers?: boolean
  /** Most tokens drawn of one answer. */
  maxTokens?: number
  /** Whether heavy tokens stand in `<ins>` and `<b>` too, for viewers that take styles away. */
  elements?: boolean
}

/**
 * Token heat map of a pair: chosen and rejected side by side, each token shaded by its weight under the first
 * weighting, with all weights and signals on hovering. Works without style sheet and script; `heatmapScript` switches
 * weightings.
 * @throws InputError for a weighting that the row does not have.
 */
export function pairMap(
  row: WeighedRow,
  { weightings = Object.keys(row.weights), numbers = false, maxTokens = 400, elements = false }: MapOptions = {},
): Html {
  for (const name of weightings) {
    if (row.weights[name]) continue
    const known = Object.keys(row.weights).join(", ")
    throw new InputError(`weightings must be among ${known}, got "${name}"; weigh the row again or choose another`)
  }
  const side = (answer: Answer) => {
    const signals = row.signals[answer]
    const left = signals.tokens.length - maxTokens
    const tokens = signals.tokens.slice(0, maxTokens).map((token, t) => {
      const weights = weightings.map((name) => row.weights[name]![answer][t] ?? 0)
      const named = weightings.map((name, i) => `${name} ${weights[i]!.toFixed(2)}`).join(", ")
      const title = [JSON.stringify(token), `weight: ${named}`, ...signalLines(signals, t)].join("\n")
      return tokenSpan(token, weights, answer, title, { numbers, elements })
    })
    const more = left > 0 && html` <i>… ${left} more tokens</i>`
    const height = numbers ? 1.3 : 1.9
    return besideCell(
      50,
      html`<b>${answer}</b><div class="tokens" data-answer="${answer}" style="line-height:${height}">${tokens}${more}</div>`,
    )
  }
  const style = "width:100%;border-collapse:collapse;table-layout:fixed"
  return html`<table class="pair" style="${style}"><tr>${side("chosen")}${side("rejected")}</tr></table>
`
}

function tokenSpan(
  token: string,
  weights: readonly number[],
  answer: Answer,
  title: string,
  { numbers, elements }: { numbers: boolean; elements: boolean },
): Html {
  const [weight = 0] = weights
  const all = weights.map((value) => value.toFixed(2)).join(" ")
  const text = token === "" ? "∅" : token.replaceAll("\n", "↵\n")
  const shown = elements ? marked(text, weight) : text
  const layout = numbers ? "display:inline-block;white-space:pre;text-align:center;" : "white-space:pre-wrap;"
  const below =
    numbers &&
    html`<small style="display:block;font-size:9px;text-decoration:none;font-weight:400">${weight.toFixed(1)}</small>`
  const style = `${layout}border-radius:2px;padding:1px 0;${tokenStyle(weight, answer)}`
  return html`<span class="token" title="${title}" data-w="${all}" style="${style}">${shown}${below}</span>`
}

/** Heavy tokens by elements: underlined, and bold. Colours of the page for added text are not for them. */
function marked(text: Part, weight: number): Part {
  if (weight < 1.25) return text
  const underlined = html`<ins style="color:inherit;background:none">${text}</ins>`
  return weight < 1.75 ? underlined : html`<b>${underlined}</b>`
}

/** What the shades mean, with sample weights of both answers. */
export function mapLegend(): Html {
  const sample = (answer: Answer) =>
    [0, 0.5, 1, 1.5, 2].map(
      (weight) => html`<span style="padding:1px 7px;${tokenStyle(weight, answer)}">${marked(weight, weight)}</span> `,
    )
  return html`<div style="font-size:13px;margin:8px 0">weight in chosen: ${sample("chosen")} · in rejected: ${sample("rejected")}<br>
<span style="color:var(--soft,#52606d)">underlined from 1.25, bold from 1.75; point at a token for its numbers</span></div>`
}

/** A choice of weightings and of numbers for all maps of a page. Its options follow the `weightings` of the maps. */
export const mapControls = (weightings: readonly string[]): Html =>
  html`<div class="controls"><label>weighting <select id="weighting">${weightings.map(
    (name, i) => html`<option value="${i}">${name}</option>`,
  )}</select></label> <label><input type="checkbox" id="token-numbers"> numbers below tokens</label></div>
${dataBlock("token-styles", { chosen: styles("chosen"), rejected: styles("rejected") })}`

const styles = (answer: Answer): string[] =>
  Array.from({ length: LEVELS + 1 }, (_, i) => tokenStyle((i / LEVELS) * MAX_WEIGHT, answer))

/** Redraws the maps of a page when another weighting, or numbers, are asked for. */
export const heatmapScript = `
const weighting = document.getElementById("weighting")
if (weighting) {
  const styles = JSON.parse(document.getElementById("token-styles").textContent)
  const numbers = document.getElementById("token-numbers")
  const redraw = () => {
    for (const tokens of document.querySelectorAll(".tokens")) {
      tokens.style.lineHeight = numbers.checked ? 1.3 : 1.9
      for (const token of tokens.querySelectorAll(".token")) {
        const weight = Number(token.dataset.w.split(" ")[weighting.value])
        const layout = numbers.checked ? "display:inline-block;white-space:pre;text-align:center;" : "white-space:pre-wrap;"
        const shade = styles[tokens.dataset.answer][Math.round((weight / ${MAX_WEIGHT}) * ${LEVELS})]
        token.style.cssText = layout + "border-radius:2px;padding:1px 0;" + shade
        token.querySelector("small")?.remove()
        if (!numbers.checked) continue
        const below = document.createElement("small")
        below.style.cssText = "display:block;font-size:9px;font-weight:400"
        below.textContent = weight.toFixed(1)
        token.append(below)
      }
    }
  }
  weighting.addEventListener("change", redraw)
  numbers.addEventListener("change", redraw)
  redraw()
}
`
