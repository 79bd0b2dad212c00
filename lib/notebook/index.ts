/**
 * What notebooks need besides the library, `musc/notebook`: progress in cells, display of records and figures, a
 * trainer with live curves. In a project of one's own it wants the optional packages of notebooks (see
 * `notebooks/README.md`).
 */

export { type BarOptions, barFigure } from "../plots/bars"
export { countWeights, noWeights, trainingCurves, weightDistribution } from "../plots/curves"
export { answersHtml, diffHtml } from "../plots/diff"
export { resultBars, satisfactionByCount, satisfactionByKind } from "../plots/figures"
export { methodFigure } from "../plots/method"
export { editKinds, stageFunnel } from "../plots/stage-figures"
export type { Figure } from "../plots/theme"
export { addClassWeights, noClassWeights, weightsByClass } from "../plots/token-classes"
export { editOutcome } from "../report/report-data"
export { wonAndLost } from "../report/report-sections"
export { mainFigure } from "../report/study-report"
export { differenceBetween, resultLines } from "../report/tables"
export { display } from "./display"
export { keyNumbers } from "./numbers"
export { cell, each, watch } from "./progress"
export { show } from "./show"
export { Trainer } from "./trainer"
