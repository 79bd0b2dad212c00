/** How pages look: light, dark where the reader's system asks for it, on a phone, and on paper. */

/** Colours of figures by what they become on a dark page; all others read on both. */
export const darkColours: Readonly<Record<string, string>> = {
  "#FFFFFF": "#15191F",
  "#FFF": "#15191F",
  "#1F2933": "#E3E8EE",
  "#222222": "#E3E8EE",
  "#000000": "#FFFFFF",
  "#E6E9EE": "#2B333D",
  "#C9CED6": "#5B6673",
  "#9AA3AF": "#6B7683",
  "#6E6E6E": "#9DA6B1",
  "#0072B2": "#3B9ADB",
  "#332288": "#8E7FE6",
  "#661100": "#D0714F",
  "#117733": "#45B06C",
  "#882255": "#D1699A",
  "#AA4499": "#CF74C0",
}

export const pageStyle = `
:root { color-scheme: light dark; --page: #fff; --ink: #1f2933; --soft: #52606d; --line: #dde2e8; --rule: #9aa3af;
  --box: #f5f7fa; --link: #0b5cad; --warn: #fdf1e7; --old: #9c3a00; --new: #004f7c; --kept: #00694d; --missed: #b04a00; --shade: rgba(31, 41, 51, .18) }
@media screen and (prefers-color-scheme: dark) {
  :root { --page: #15191f; --ink: #e3e8ee; --soft: #a3afbb; --line: #333c47; --rule: #6b7683; --box: #1e242c;
    --link: #6cb6ff; --warn: #3a2a1a; --old: #ff9d66; --new: #6cc0f5; --kept: #4fd1a5; --missed: #ff9d66; --shade: rgba(0, 0, 0, .55) }
  del { color: var(--old) !important } ins { color: var(--new) !important }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
main { max-width: 1100px; margin: 0 auto; padding: 28px 24px 64px }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 8px; overflow-wrap: anywhere }
h2 { font-size: 21px; margin: 44px 0 10px; padding-top: 12px; border-top: 1px solid var(--line) }
h3 { font-size: 16px; margin: 26px 0 8px }
p { margin: 8px 0; max-width: 78ch }
.lead { font-size: 18px; max-width: 70ch }
.note, figcaption { color: var(--soft); font-size: 14px }
.warning { border-left: 4px solid #d55e00; background: var(--warn); padding: 8px 12px; max-width: none; overflow-wrap: anywhere }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 14px 0 0; font-size: 14px }
a { color: var(--link) }
figure { margin: 18px 0; overflow-x: auto }
@media (min-width: 701px) { .plot { min-width: 860px } }
figcaption { max-width: 78ch }
/* a shadow at a side says that the table goes on there */
.wide { overflow-x: auto; margin: 12px 0; background: linear-gradient(to right, var(--page) 40%, transparent) left / 40px 100% no-repeat local,
  linear-gradient(to left, var(--page) 40%, transparent) right / 40px 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) left / 12px 100% no-repeat scroll,
  linear-gradient(to left, var(--shade), transparent) right / 12px 100% no-repeat scroll }
table { border-collapse: collapse; min-width: 50%; font-size: 14px }
th { text-align: left; font-weight: 600; border-bottom: 2px solid var(--rule); white-space: nowrap }
th, td { padding: 5px 10px; vertical-align: top }
td { border-bottom: 1px solid var(--line) }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.mark { text-align: center; white-space: nowrap }
tr.ours td { background: var(--box) }
small { color: var(--soft); font-size: 12.5px }
pre, code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: 12px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; margin: 14px 0; break-inside: avoid }
.card > .head { color: var(--soft); font-size: 13px; margin-bottom: 6px }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 16px }
.two > div { min-width: 0 }
.text { white-space: pre-wrap; overflow-wrap: anywhere }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 12px 0 }
.facts dt { color: var(--soft) } .facts dd { margin: 0; overflow-wrap: anywhere }
details { margin: 12px 0 } summary { cursor: pointer; color: var(--link) }
.controls { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center; margin: 12px 0 }
select, input, button { font: inherit; padding: 3px 6px; color: inherit; background: var(--box); border: 1px solid var(--rule); border-radius: 4px; max-width: 100% }
.kept { color: var(--kept); font-weight: 700 } .missed { color: var(--missed); font-weight: 700 }
.samples .two { margin: 6px 0 } .samples .two h4 { margin-top: 4px } .samples ul { margin: 4px 0; padding-left: 4px; list-style: none }
.samples h4 { margin: 10px 0 2px; font-size: 13px; color: var(--soft) } .samples li { margin: 2px 0 }
@media (max-width: 700px) {
  main { padding: 16px 14px 48px } h1 { font-size: 23px } h2 { font-size: 19px; margin-top: 32px } .lead { font-size: 16px }
  .two, .facts { grid-template-columns: 1fr } .facts dd { margin-bottom: 6px }
  th, td { padding: 4px 7px } nav { gap: 8px 14px } select, input, button { padding: 7px 8px }
  .card table:not(.pair) { min-width: 100% } .card th.mark { width: auto !important }
  table.pair, table.pair tbody, table.pair tr, table.pair td { display: block; width: 100% !important }
}
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  @page { margin: 14mm }
  main { max-width: none; padding: 0 } nav, .controls, .samples { display: none }
  .plot { zoom: .64 } figure, .wide { overflow: visible }
  table, small, .note, figcaption { font-size: 10.5px } th, td { padding: 3px 6px }
  h2 { break-after: avoid } figure, tr { break-inside: avoid } body { font-size: 12px }
}
`
