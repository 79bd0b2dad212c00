/**
 * Few-shot examples of the generating stages, in our own words. (The released code shows the InFoBench Hard set to the
 * model as examples, so scores on it are contaminated; ours overlap with no benchmark.)
 */

/** An instruction and its constraints. Read backwards, the same example shows how to recombine them. */
export interface DecomposeDemo {
  instruction: string
  /** A text that the instruction is about. */
  input: string | null
  /** One yes/no question a constraint; the first is the task itself. */
  questions: readonly string[]
}

/** One constraint before and after it was corrupted. */
export interface EditDemo {
  question: string
  changed: string
}

/** Three with an input text, two without, in alternation so that any number of them shows both. */
export const decomposeDemos: readonly DecomposeDemo[] = [
  {
    instruction:
      "Summarise the message below for a busy manager in at most two sentences. Name the deadline, and leave out all names of people.",
    input:
      "Hi all, Priya here. Tom found a leak behind the cold store on Monday. The plumber can only come on Thursday, so please empty the lower shelves by Wednesday noon. Thanks, Priya",
    questions: [
      "Is the answer a summary of the given message?",
      "Is the summary suitable for a busy manager?",
      "Does the summary have at most two sentences?",
      "Does the summary name the deadline?",
      "Does the summary leave out all names of people?",
    ],
  },
  {
    instruction:
      "Write a packing list for a three-day hike in the rain. Use exactly eight bullet points, put the heaviest item first, and add its weight in grams to each item.",
    input: null,
    questions: [
      "Is the answer a packing list for a three-day hike?",
      "Is the list made for rainy weather?",
      "Does the list have exactly eight bullet points?",
      "Is the heaviest item listed first?",
      "Does each item give its weight in grams?",
    ],
  },
  {
    instruction:
      "Turn the following notes into a polite reply to the customer. Apologise once, offer a new delivery date, and stay under 80 words.",
    input: "parcel lost at depot - lamp in stock again - can ship on 4 May - refund of postage agreed",
    questions: [
      "Is the answer a reply to the customer based on the given notes?",
      "Is the reply polite?",
      "Does the reply apologise exactly once?",
      "Does the reply offer a new delivery date?",
      "Does the reply have fewer than 80 words?",
    ],
  },
  {
    instruction:
      "Explain to a ten-year-old why the sea is salty. Write in the second person, compare it with something from a kitchen, and end with a question.",
    input: null,
    questions: [
      "Does the answer explain why the sea is salty?",
      "Can a ten-year-old understand the explanation?",
      "Is the answer written in the second person?",
      "Does the answer compare it with something from a kitchen?",
      "Does the answer end with a question?",
    ],
  },
  {
    instruction:
      "List every animal in the passage as a JSON array of lower-case strings, sorted by the alphabet, without repeats. Add nothing else.",
    input:
      "A Heron stood by the pond. Two frogs slid away from the heron, and a dog barked at the frogs from the far bank.",
    questions: [
      "Does the answer list every animal in the given passage?",
      "Is the list a JSON array of strings?",
      "Are all strings in lower case?",
      "Is the list sorted by the alphabet?",
      "Is the list free of repeats?",
      "Does the answer hold nothing but the list?",
    ],
  },
]

export const negateDemos: readonly EditDemo[] = [
  { question: "Does the summary name the deadline?", changed: "Does the summary avoid naming the deadline?" },
  { question: "Is the answer free of adjectives?", changed: "Is the answer full of adjectives?" },
  { question: "Does the poem have at most ten lines?", changed: "Does the poem have more than ten lines?" },
  { question: "Is the reply written in a formal tone?", changed: "Is the reply written in an informal tone?" },
]

export const substituteDemos: readonly EditDemo[] = [
  {
    question: "Does the list have exactly eight bullet points?",
    changed: "Does the list have exactly five bullet points?",
  },
  { question: "Is the answer written in French?", changed: "Is the answer written in Portuguese?" },
  { question: "Does the story mention a lighthouse?", changed: "Does the story mention a railway station?" },
  { question: "Does the letter end with a question?", changed: "Does the letter end with a joke?" },
]

/** Instructions with more than five constraints: with the text that they are about, and without one. */
export const selfInstructDemos: { text: readonly string[]; plain: readonly string[] } = {
  text: [
    "Rewrite this notice for visitors of a small museum: 'Lift out of order until further notice.' Use three sentences, be friendly, name one other way to the upper floor, avoid the word 'sorry', use no exclamation mark, and close with the opening hours.",
    "Sort these errands for Saturday: bakery, post office, pharmacy, swimming lesson at eleven. Answer with a table of two columns, write times in 24-hour form, start at nine, leave ten minutes between errands, end before two, and add one line of advice below the table.",
    "Turn this line of a diary into a haiku: 'Fog again, the ferry never came, we shared one orange on the pier.' Keep the orange, leave out people, use the present tense, put no comma anywhere, write in lower case, and give it a title of one word.",
    "Find the faults in this recipe step: 'Boil the eggs for 90 minutes, then fry raw.' Name each fault in a line of its own, rank the lines by danger, quote the words at fault, propose a repair for each, stay under 60 words, and end with the corrected step.",
  ],
  plain: [
    "Plan a birthday dinner for six guests. Give four courses in a numbered list, keep every dish vegetarian, use no nuts, name the cooking time of each dish in minutes, mark one dish as cold, and finish with a shopping list of at most twelve items.",
    "Write a short scene between a baker and a lost tourist. Use only dialogue, keep it under 150 words, set it at dawn, let the tourist speak in questions, mention two street names, and end on a misunderstanding.",
    "Explain how a bicycle gear works to someone who repairs clocks. Write two paragraphs, compare at least two parts with parts of a clock, avoid formulas, define every technical word, address the reader directly, and close with one thing to try.",
    "Draft a function in Python that counts the working days between two dates. Use only the standard library, give type hints, write a one-line docstring, raise an error if the dates are in the wrong order, name no variable with one letter, and show two calls with their results.",
  ],
}
