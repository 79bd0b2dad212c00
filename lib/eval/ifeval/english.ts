import { join } from "node:path"
import { z } from "zod"
import { readJsonFile } from "../../data/json-file"
import { parseRecord } from "../../data/jsonl"

/** What Punkt knows of a language. Words are in lower case and without their final full stop. */
export interface PunktModel {
  abbreviations: ReadonlySet<string>
  /** Pairs "word next" that hold together over a full stop; numbers are written ##number##. */
  collocations: ReadonlySet<string>
  /** Words that often open a sentence. */
  starters: ReadonlySet<string>
  /** Words also written with a small first letter. */
  ordinary: ReadonlySet<string>
  /** Words also written with a capital inside a sentence. */
  capitalised: ReadonlySet<string>
  /** Words that open sentences with a small letter and are never written with a capital. */
  small: ReadonlySet<string>
}

/** NLTK's English Punkt model; its card stands beside it. The same place seen from `lib` and from `dist`. */
const FILE = join(__dirname, "../../../data/models/punkt/english.json")

const texts = z.array(z.string())
const parameters = z.object({
  abbreviations: texts,
  collocations: texts.describe("word and next word"),
  starters: texts.describe("here and below: lines of words"),
  small: texts.describe("words that open sentences with a small letter and are never written with a capital"),
  openers: texts.describe("words written small that have a capital at the start of sentences alone"),
  mixed: texts.describe("words written small that also have a capital inside sentences"),
})

let loaded: PunktModel | undefined

/** English as NLTK's Punkt model has it, read from disk when first needed. @throws InputError if the file is broken. */
export function englishModel(): PunktModel {
  loaded ??= readModel()
  return loaded
}

function readModel(): PunktModel {
  const record = parseRecord(parameters, readJsonFile(FILE), { file: FILE })
  const words = (lines: readonly string[]) => lines.flatMap((line) => line.split(" "))
  const [openers, mixed] = [words(record.openers), words(record.mixed)]
  return {
    abbreviations: new Set(record.abbreviations),
    collocations: new Set(record.collocations),
    starters: new Set(words(record.starters)),
    ordinary: new Set([...openers, ...mixed]),
    capitalised: new Set(mixed),
    small: new Set(words(record.small)),
  }
}
