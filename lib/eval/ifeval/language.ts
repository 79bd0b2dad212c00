import type { LanguageIdentifier } from "cld3-asm"

let identifier: LanguageIdentifier | undefined
let loading: Promise<void> | undefined

/** Longest wait for the detector, in milliseconds: it takes a few, and much more on a machine that is busy. */
const timeout = 120_000

/** Loads the language detector (CLD3 in WebAssembly); once in a process, before the first call of detectLanguage. */
export function loadLanguages(): Promise<void> {
  loading ??= import("cld3-asm")
    .then(({ loadModule }) => loadModule({ timeout }))
    .then((factory) => {
      identifier = factory.create(0, 4096)
    })
  return loading
}

/**
 * Links and mail addresses. A mail address starts where its word does: tried at each letter, long words would take
 * ages.
 */
const links = /https?:\/\/[-_.?&~;+=/#0-9A-Za-z]+|(?<![-_.0-9A-Za-z])[-_.0-9A-Za-z]+@[-_0-9A-Za-z]+[-_.0-9A-Za-z]+/g
const scripts = `Latin Cyrillic Greek Arabic Hebrew Devanagari Bengali Gurmukhi Gujarati Tamil Telugu Kannada Malayalam Thai
  Han Hiragana Katakana Hangul`
const letter = new RegExp(scripts.replace(/\S+\s*/g, (script) => `|\\p{Script=${script.trim()}}`).slice(1), "u")

/** Without ASCII letters where others are twice as many, as langdetect has it. */
const mainScript = (text: string) => {
  const ascii = text.match(/[a-zA-Z]/g)?.length ?? 0
  const others = text.match(/(?!\p{Script=Latin})[\u0300-\u{10ffff}]/gu)?.length ?? 0
  return ascii * 2 < others ? text.replace(/[a-zA-Z]/g, "") : text
}

/**
 * ISO 639-1 code of the language of a text; undefined where langdetect, which the official scorer uses, finds nothing
 * to go by: no letter of the scripts it knows outside of links and mail addresses. CLD3, fed with the words alone,
 * gives the same answer every time; langdetect draws random numbers without a seed. What CLD3 is not sure of (below .8)
 * counts as English if its letters are ASCII. Where langdetect does not waver itself, both agree on paragraphs in the
 * languages of the benchmark, also in small letters; on 98 % of English in capitals, of which langdetect takes some for
 * German or Vietnamese; on 93 % of scraps and texts of mixed languages.
 */
export function detectLanguage(text: string): string | undefined {
  const plain = text.replace(links, " ")
  if (!letter.test(plain)) return undefined
  if (!identifier) throw new Error("detectLanguage: loadLanguages must have run; await it first")
  const words = mainScript(plain).replace(/[^\p{L}\p{M}]+/gu, " ")
  const { language, probability } = identifier.findLanguage(words)
  return probability < 0.8 && /^[\x20-\x7e]*$/.test(words) ? "en" : language
}
