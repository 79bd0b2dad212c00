import type { Completion, Generator } from "../engine/engine"
import { replyOf } from "../engine/reply"
import { respondMessages } from "../musc/respond"
import { streamKey } from "../rng"
import { checkTask } from "./check"
import { corpusExample, type Task } from "./corpus"
import { csr, type Graded, gradeAnswer, isr, worldInstructions } from "./spec"

/** How often something succeeded. */
export interface Share {
  solved: number
  n: number
}

export type Shares = Record<string, Share>

/** Satisfaction on held-out instructions: CSR and ISR are shares in [0, 1]; `kinds` counts constraints by kind. */
export interface Ability {
  temperature: number
  n: number
  csr: number
  isr: number
  kinds: Shares
}

const answerTokens = 96
const metaTokens = 192

/** Answers `n` held-out instructions of 3 to 5 constraints and grades them exactly. */
export async function measureAbility(
  engine: Generator,
  { n, temperature, seed }: { n: number; temperature: number; seed: number },
): Promise<Ability> {
  const rows = worldInstructions({ n, seed, split: "eval", constraints: [3, 5] })
  const answers = await Promise.all(
    rows.map(({ id, instruction, input }) =>
      replyOf(engine, {
        messages: respondMessages(instruction, input),
        seed: streamKey(seed, "measure", id),
        temperature,
        maxTokens: answerTokens,
      }),
    ),
  )
  const graded = rows.map(({ world }, i) => gradeAnswer(world, answers[i]!.text))
  return { temperature, n, csr: csr(graded), isr: isr(graded), kinds: byKind(graded) }
}

function byKind(graded: readonly (readonly Graded[])[]): Shares {
  const kinds: Shares = {}
  for (const { kind, negated, satisfied } of graded.flat()) count(kinds, negated ? `not ${kind}` : kind, satisfied)
  return kinds
}

/**
 * Does `n` held-out examples of each task at temperature 0, but .5 for self-instruct, whose prompt is always the same;
 * right is exact or equivalent (see `checkTask`).
 */
export async function measureTasks(
  engine: Generator,
  { n, seed, tasks }: { n: number; seed: number; tasks: readonly Task[] },
): Promise<Shares> {
  const wanted = new Map(tasks.map((task) => [task, n]))
  const pending: Promise<void>[] = []
  const shares: Shares = {}
  for (let i = 0; [...wanted.values()].some((left) => left > 0); i++) {
    const example = corpusExample(i, { seed: streamKey(seed, "measure-tasks"), phase: "finishing", split: "eval" })
    const left = wanted.get(example.task) ?? 0
    if (left === 0) continue
    wanted.set(example.task, left - 1)
    const answer: Promise<Completion> = replyOf(engine, {
      messages: [{ role: "user", content: example.prompt }],
      seed: streamKey(seed, "measure-tasks", i),
      temperature: example.task === "self-instruct" ? 0.5 : 0,
      maxTokens: metaTokens,
    })
    pending.push(answer.then(({ text }) => count(shares, example.task, checkTask(example.task, example, text))))
  }
  await Promise.all(pending)
  return shares
}

function count(shares: Shares, name: string, solved: boolean): void {
  shares[name] ??= { solved: 0, n: 0 }
  shares[name].n++
  if (solved) shares[name].solved++
}
