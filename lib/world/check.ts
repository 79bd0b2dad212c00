import { parseVerdict } from "../baselines/judge"
import { parseRevision } from "../baselines/revise"
import { parseQuestion } from "../musc/corrupt"
import { parseConstraints } from "../musc/decompose"
import { parseInstruction } from "../musc/recombine"
import type { CorpusExample, Task } from "./corpus"
import { readInstruction, readQuestion } from "./inverse"
import { questionOf } from "./kinds"
import { gradeAnswer, sameConstraints } from "./spec"

/** Whether a model's text solves the example's task, read with the stage's own parser: exactly, or in other words. */
export function checkTask(task: Task, example: CorpusExample, text: string): boolean {
  return checks[task](example, text)
}

const keepsAll = ({ spec }: CorpusExample, text: string): boolean =>
  gradeAnswer(spec, text).every(({ satisfied }) => satisfied)

const checks: Readonly<Record<Task, (example: CorpusExample, text: string) => boolean>> = {
  respond: (example, text) => keepsAll(example, text.trim()),
  revise: (example, text) => keepsAll(example, parseRevision(text)),
  // The task itself comes first, the others in any order.
  decompose: ({ spec }, text) => {
    const constraints = parseConstraints(text)
    const wanted = spec.constraints.map(questionOf)
    return (
      constraints[0] === wanted[0] &&
      constraints.length === wanted.length &&
      wanted.every((question) => constraints.includes(question))
    )
  },
  recombine: ({ spec }, text) => {
    const constraints = readInstruction(parseInstruction(text))
    return constraints !== undefined && sameConstraints(constraints, spec.constraints)
  },
  negate: ({ response }, text) => parseQuestion(text) === response,
  substitute: ({ original }, text) => {
    const constraint = readQuestion(parseQuestion(text))
    return (
      constraint !== undefined &&
      constraint.kind === original!.kind &&
      constraint.negated === original!.negated &&
      constraint.value !== original!.value
    )
  },
  echo: ({ response }, text) => text.trim() === response,
  "look-up": ({ response }, text) => text.trim() === response,
  judge: ({ response }, text) => parseVerdict(text) === parseVerdict(response),
  "self-instruct": (_, text) => (readInstruction(parseInstruction(text))?.length ?? 0) > 5,
}
