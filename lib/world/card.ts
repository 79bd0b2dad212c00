import type { Phase } from "./corpus"
import type { Ability, Shares } from "./measure"
import type { PhaseOptions, WorldSize } from "./train"

/** Settings of the embedded model's making; the defaults made the committed one. */
export interface WorldBuildOptions {
  size: WorldSize
  /** examples whose words make the vocabulary */
  vocabularyExamples: number
  /** words repeated, nothing else: without it each kind of constraint learns to copy for itself, and late */
  copy: Omit<PhaseOptions, "phase" | "seed">
  /** all tasks but judging: what searching is made of comes with them */
  writing: Omit<PhaseOptions, "phase" | "seed">
  /** words looked up, nothing else: it takes many examples at once before any of it shows */
  searching: Omit<PhaseOptions, "phase" | "seed">
  /** all tasks, mostly verdicts and looking up, so that the one is made of the other */
  judging: Omit<PhaseOptions, "phase" | "seed">
  able: Omit<PhaseOptions, "phase" | "seed">
  /** all tasks at a falling rate */
  settling: Omit<PhaseOptions, "phase" | "seed">
  /** all tasks, once more at a falling rate; its end is the able model */
  finishing: Omit<PhaseOptions, "phase" | "seed">
  careless: Omit<PhaseOptions, "phase" | "seed">
  seed: number
  /** held-out instructions, and examples of each task, for the figures of the card */
  check: { instructions: number; tasks: number }
}

/** What is known of an embedded model: how it was made, and how able it was after each phase. */
export interface WorldCard {
  options: WorldBuildOptions
  made: { command: string; commit: string; machine: string }
  parameters: number
  /** of each phase, prompts included and padding not */
  tokens: Record<string, number>
  able: PhaseFigures
  careless: PhaseFigures
}

export interface PhaseFigures {
  /** of the last step, weighted mean cross-entropy of the response tokens, nats */
  loss: number
  /** at temperature 0 and .5 */
  abilities: Ability[]
  tasks: Shares
}

/** The model card, in Markdown with the metadata block that model hubs read. */
export function modelCard({ options, made, parameters, tokens, able, careless }: WorldCard): string {
  const rate = (x: number) => x.toFixed(3)
  const millions = (n: number) => `${(n / 1e6).toFixed(1)} M`
  const rows = (shares: (figures: PhaseFigures) => Shares) =>
    Object.keys(shares(able))
      .sort()
      .map((name) => {
        const cell = (figures: PhaseFigures) => {
          const share = shares(figures)[name]
          return share ? `${rate(share.solved / share.n)} (${share.n})` : "–"
        }
        return `| ${name} | ${cell(able)} | ${cell(careless)} |`
      })
  const abilities = able.abilities.map(({ temperature, n, csr, isr }, i) => {
    const base = careless.abilities[i]!
    return `| ${temperature} | ${rate(csr)} | ${rate(isr)} | ${rate(base.csr)} | ${rate(base.isr)} | ${n} |`
  })
  const phase = (name: Phase) => {
    const { steps, batchSize, lr } = options[name]
    return `${steps} steps of ${batchSize} examples (${millions(tokens[name]!)} tokens), AdamW at ${lr}`
  }
  return `---
language: en
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [musc, synthetic]
---

# The embedded model of musc

A Llama of ${(parameters / 1e6).toFixed(2)} M parameters that speaks the small English of \`lib/world\` and does every task that the
stages of MuSC ask of a model: respond, decompose, recombine, negate, substitute, judge, revise, self-instruct. It is *able but
careless*: it knows how to satisfy each kind of constraint, and often does not. It is for teaching and testing, not for use.

- **Corpus**: endless and synthetic, written by \`lib/world\` (seed ${options.seed}); instructions of its evaluation split are never trained on.
- **Tokens**: ${millions(Object.values(tokens).reduce((sum, n) => sum + n, 0))} in all phases, prompts included and padding not.
- **Copy phase**: random words to repeat; ${phase("copy")}.
- **Writing phase**: faultless examples of all tasks but judging; ${phase("writing")}.
- **Searching phase**: words to look up, in random lists and in texts; ${phase("searching")}.
- **Judging phase**: all tasks, verdicts and look-up two thirds of them; ${phase("judging")}.
- **Able phase**: all tasks, faultless; ${phase("able")}.
- **Settling phase**: the same, what is learned last a little more often, at a falling rate; ${phase("settling")}.
- **Finishing phase**: once more; ${phase("finishing")}; last loss ${able.loss.toFixed(4)} nats a token.
- **Careless phase**: answers heed each constraint by chance, by kind and wording, all else stays faultless; ${phase("careless")}; last loss ${careless.loss.toFixed(4)}.
- **Made by** \`${made.command}\` at commit ${made.commit} on ${made.machine}, with the trainer of this project. The same command makes it again.

Shares below are of held-out examples, checked by the world's own verifiers; counts in brackets.

| temperature | able CSR | able ISR | base CSR | base ISR | instructions |
|---|---|---|---|---|---|
${abilities.join("\n")}

| task, exact or equivalent | able | base |
|---|---|---|
${rows(({ tasks }) => tasks).join("\n")}

| kind of constraint, temperature 0 | able | base |
|---|---|---|
${rows(({ abilities: [greedy] }) => greedy!.kinds).join("\n")}
`
}
