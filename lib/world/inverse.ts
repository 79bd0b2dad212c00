import { type Constraint, kindNames, kinds } from "./kinds"
import { lowerFirst } from "./pools"
import { openings } from "./spec"

/** All constraints that the world knows, both ways round. */
export const allConstraints: readonly Constraint[] = kindNames.flatMap((kind) =>
  kinds[kind].values.flatMap((value) => [false, true].map((negated) => ({ kind, value, negated }))),
)

const byQuestion: ReadonlyMap<string, Constraint> = new Map(
  allConstraints.map((item) => [kinds[item.kind].question(item.value, item.negated), item]),
)
const byClause: ReadonlyMap<string, Constraint> = new Map(
  allConstraints.flatMap((item) =>
    kinds[item.kind]
      .clauses(item.value, item.negated)
      .map((clause): [string, Constraint] => [lowerFirst(clause), item]),
  ),
)
const byInline: ReadonlyMap<string, Constraint> = new Map(
  allConstraints
    .filter(({ kind, negated }) => kinds[kind].inline && !negated)
    .map((item) => [kinds[item.kind].inline!(item.value), item]),
)

/** The constraint that a question means; undefined when it is none of the world's questions, word for word. */
export const readQuestion = (question: string): Constraint | undefined => byQuestion.get(question)

/**
 * The constraints that an instruction expresses, in order; undefined unless every part of it is a wording of the world.
 * The inverse of `instructionOf`, written independently of specs.
 */
export function readInstruction(text: string): Constraint[] | undefined {
  if (!text.endsWith(".")) return undefined
  const clauses = text
    .slice(0, -1)
    .split(". ")
    .flatMap((sentence) => splitClauses(sentence))
  const opening = readOpening(clauses[0]!)
  const rest = clauses.slice(1).map((clause) => byClause.get(clause))
  if (!opening || rest.some((item) => item === undefined || item.kind === "topic")) return undefined
  return [...opening, ...(rest as Constraint[])]
}

/** A sentence begins with a capital; a clause behind "and" does not. Clauses come out with a small first letter. */
function splitClauses(sentence: string): string[] {
  const [first, ...rest] = sentence.split(" and ")
  return [lowerFirst(first!) === first ? "" : lowerFirst(first!), ...rest]
}

/** "Write about a brave sailor in a harbor in two sentences": the topic first, then what is worded inside. */
function readOpening(clause: string): Constraint[] | undefined {
  const opening = openings.find((words) => clause.startsWith(`${lowerFirst(words)} `))
  const hero =
    opening && /^an? (?:(\w+) )?(\w+)((?: (?:in|with|at|on|during) .*)?)$/.exec(clause.slice(opening.length + 1))
  if (!hero) return undefined
  const [, adjective, subject, behind] = hero
  if (!kinds.topic.values.includes(subject!)) return undefined
  const phrases = behind!.split(/ (?=(?:in|with|at|on|during) )/).slice(1)
  const inside = [...(adjective ? [adjective] : []), ...phrases].map((phrase) => byInline.get(phrase))
  if (inside.some((item) => item === undefined)) return undefined
  return [{ kind: "topic", value: subject!, negated: false }, ...(inside as Constraint[])]
}
