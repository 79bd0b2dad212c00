import { describe, expect, it } from "vitest"
import type { Scoring } from "../../lib/eval/benchmark"
import { pythonStrings, ruleOf } from "../../lib/eval/followbench/rules"
import type { Language } from "../../lib/eval/followbench/text"

interface Case {
  category?: string
  exampleId?: number
  target?: string
  language?: Language
  scoring?: Scoring
}

function passes(source: string, level: number, answer: string, options: Case = {}): boolean {
  const { category = "mixed", exampleId = 1, target = "", language = "en", scoring = "official" } = options
  return ruleOf(category, source, exampleId, language)!(answer, { language, level, target, scoring })
}

/** Highest level up to which an answer satisfies a rule whose conditions add up, 0 when not even the first. */
const reach = (source: string, answer: string, options: Case = {}): number =>
  [1, 2, 3, 4, 5].filter((level) => passes(source, level, answer, options)).length

const zh = { language: "zh" } as const
const corrected = { scoring: "corrected" } as const
const repeat = (word: string, times: number) => Array.from({ length: times }, () => word).join(" ")

describe("which FollowBench answers a rule checks", () => {
  it("is told by source, by example_id in format, and is all of example", () => {
    expect(ruleOf("content", "E2E", 3, "en")).toBeDefined()
    expect(ruleOf("content", "quora", 3, "en")).toBeUndefined()
    expect(ruleOf("style", "constructor", 3, "en")).toBeUndefined()
    expect(ruleOf("format", "koala", 22, "zh")).toBeDefined()
    expect(ruleOf("format", "koala", 30, "en")).toBeDefined()
    expect(ruleOf("format", "koala", 30, "zh")).toBeUndefined()
    expect(ruleOf("format", "koala", 21, "en")).toBeUndefined()
    expect(ruleOf("example", "any", 7, "zh")).toBeDefined()
  })
})

describe("rules with a target", () => {
  it.each(["E2E", "text_editing"])("%s wants the very text, white space included unless corrected", (source) => {
    const target = "name[The Owl], food[Thai]"
    expect(passes(source, 3, target, { target })).toBe(true)
    expect(passes(source, 3, `${target}\n`, { target })).toBe(false)
    expect(passes(source, 3, `${target}\n`, { target, ...corrected })).toBe(true)
    expect(passes(source, 3, "name[The Owl], food[thai]", { target, ...corrected })).toBe(false)
  })

  it("CONLL2003 wants one of the strings of a Python list", () => {
    const target = `['Lima', "Land's End"]`
    expect(passes("CONLL2003", 1, "Land's End", { target })).toBe(true)
    expect(passes("CONLL2003", 1, "Lima, Land's End", { target })).toBe(false)
    expect(passes("CONLL2003", 1, " Lima", { target })).toBe(false)
    expect(passes("CONLL2003", 1, " Lima", { target, ...corrected })).toBe(true)
  })

  it("reads Python lists of strings and nothing else", () => {
    expect(pythonStrings(`['a', "b's", 'c\\'d',]`)).toEqual(["a", "b's", "c'd"])
    expect(pythonStrings("[]")).toEqual([])
    for (const text of ["a", "['a' 'b']", "['a', b]", "['a'] + ['b']", "[1]"])
      expect(pythonStrings(text)).toBeUndefined()
  })

  it("WIKIEVENTS wants known lines, corrected also as many different ones as the level asks for", () => {
    const target = "A fell\nB fell\nC fell"
    expect(passes("WIKIEVENTS", 2, "B fell\nC fell", { target })).toBe(true)
    expect(passes("WIKIEVENTS", 2, "B fell\nD fell", { target })).toBe(false)
    expect(passes("WIKIEVENTS", 2, "B fell", { target })).toBe(true)
    expect(passes("WIKIEVENTS", 2, "B fell", { target, ...corrected })).toBe(false)
    expect(passes("WIKIEVENTS", 2, "B fell\nB fell", { target, ...corrected })).toBe(false)
    expect(passes("WIKIEVENTS", 2, "B fell\n\n C fell", { target, ...corrected })).toBe(true)
  })

  it("BBH_logical, BBH_time and gsm_8k compare the last match, self_made_space looks for the text", () => {
    expect(passes("BBH_logical", 1, "Not (A), so (C).", { target: "(C)" })).toBe(true)
    expect(passes("BBH_logical", 1, "(C), not (A).", { target: "(C)" })).toBe(false)
    expect(passes("BBH_logical", 1, "C", { target: "(C)" })).toBe(false)
    expect(passes("BBH_time", 1, "01/02/2003 or 03/04/2005", { target: "03/04/2005" })).toBe(true)
    expect(passes("BBH_time", 1, "3/4/2005", { target: "03/04/2005" })).toBe(false)
    expect(passes("gsm_8k", 1, "$5 and $9.50", { target: "$9" })).toBe(true)
    expect(passes("gsm_8k", 1, "9 dollars", { target: "$9" })).toBe(false)
    expect(passes("gsm_8k", 1, "先5美元，共9美元", { target: "9美元", ...zh })).toBe(true)
    expect(passes("gsm_8k", 1, "9元", { target: "9美元", ...zh })).toBe(false)
    expect(passes("self_made_space", 1, "On the 9th floor.", { target: "9th floor" })).toBe(true)
    expect(passes("self_made_space", 1, "On floor 9.", { target: "9th floor" })).toBe(false)
  })

  it("example wants the whole answer in the form, on lines as given, whatever the answer says", () => {
    const quoted = { category: "example", target: "{instruction}\n{{'Bot': '{answer}'}}" }
    expect(passes("squad", 1, "{'Bot': 'a (b)'}", quoted)).toBe(true)
    expect(passes("squad", 1, "{'Bot': 'a\nb'}", quoted)).toBe(false)
    expect(passes("squad", 1, '{"Bot": "a"}', quoted)).toBe(false)
    const headed = { category: "example", target: "{instruction}\n[Reply]\n{answer}" }
    expect(passes("squad", 1, "[Reply]\nyes", headed)).toBe(true)
    expect(passes("squad", 1, "[Reply]\n", headed)).toBe(true)
    expect(passes("squad", 1, "R\nyes", headed)).toBe(false)
    expect(passes("squad", 1, "[Reply]\nyes\n", headed)).toBe(false)
    expect(passes("squad", 1, "[Reply]\nyes\n", { ...headed, ...corrected })).toBe(true)
  })
})

describe("rules of the summaries, one more condition a level", () => {
  it.each([
    ["cnn_dailymail", 5, "Potter is rich. The actor saves. His films have sold."],
    ["cnn_dailymail", 4, "Potter is rich. The actor saves. His films sold."],
    ["cnn_dailymail", 3, "Potter is rich. The lavish actor saves. His films have sold."],
    ["cnn_dailymail", 2, "Potter is rich. The actors save. His films have sold."],
    ["cnn_dailymail", 1, `Potter ${repeat("is", 14)}. The actor saves. His films have sold.`], // 15 words
    ["cnn_dailymail", 0, "Potter is rich. The actor saves."],
    ["xsum", 5, "Crews are clearing roads in a large operation."],
    ["xsum", 4, "Crews are clearing roads in large operations."],
    ["xsum", 3, "Crews cleared roads in a large operation."],
    ["xsum", 2, "Crews are clearing Newton Stewart in a large operation."],
    ["xsum", 1, `Crews are clearing roads in an operation ${repeat("now", 13)}.`], // 7 + 13 = 20 words
    ["xsum", 0, "Crews are clearing roads. It is a large operation."],
    ["samsum", 5, "Kim put her stuff off."],
    ["samsum", 4, "Kim, she put her stuff off."],
    ["samsum", 3, "Kim is a Procrastinator with stuff."],
    ["samsum", 2, "Kim stuffed it."],
    ["samsum", 1, `stuff ${repeat("now", 14)}`], // 15 words
    ["samsum", 0, "Kim waits. Stuff."],
    ["gigaword", 5, "two people die in a southern coach blast"],
    ["gigaword", 4, "two people die on a southern coach blast"],
    ["gigaword", 3, "two people die in a southern bus blast"],
    ["gigaword", 2, "Two people die in a southern coach blast"],
    ["gigaword", 1, "two people die in a southern coach blast."],
    ["gigaword", 0, "two people die in a coach blast"],
    ["arxiv", 5, "We trace activations."],
    ["arxiv", 4, "We trace transformer activations."],
    ["arxiv", 3, "We trace neurons."],
    ["arxiv", 2, "They trace activations."],
    ["arxiv", 1, `We trace activations ${repeat("now", 18)}.`], // 21 words
    ["arxiv", 0, "We trace. activations."],
  ])("%s: level %i is the last for %j", (source, level, answer) => {
    expect(reach(source, answer)).toBe(level)
    expect(reach(source, answer, corrected)).toBe(level)
  })

  it.each([
    ["cnn_dailymail", 5, "波特满十八岁。演员很节俭。电影上映了！"],
    ["cnn_dailymail", 4, "波特满十八岁。演员很节俭。电影上映！"],
    ["cnn_dailymail", 3, "波特满十八岁。演员很奢侈。电影上映了！"],
    ["cnn_dailymail", 2, "波特满十八岁。他很节俭。电影上映了！"],
    ["cnn_dailymail", 1, "波特在今年的夏天终于年满十八岁了。演员。电影。"], // 16 characters
    ["cnn_dailymail", 0, "波特。演员"],
    ["xsum", 5, "人们在操作中抢修。"],
    ["xsum", 4, "人们在抢修。"],
    ["xsum", 3, "人们抢修操作。"],
    ["xsum", 2, "牛顿斯图尔特在操作。"],
    ["xsum", 1, "一二三四五六七八九十一二三四五六七八九在操作。"], // 23 characters
    ["xsum", 0, "人们在抢修。操作。"],
    ["samsum", 5, "金有琐碎的事。"],
    ["samsum", 4, "金，有琐碎的事。"],
    ["samsum", 3, "拖沓的金有琐碎的事。"],
    ["samsum", 2, "金有事。"],
    ["samsum", 1, "金有琐碎的事金有琐碎的事金有琐碎的事"], // 18 characters
    ["samsum", 0, "金有事。琐碎的。"],
    ["gigaword", 3, "公交车爆炸有人死"],
    ["gigaword", 2, "南部爆炸2人身亡"],
    ["gigaword", 1, "南部爆炸，人身亡"],
    ["gigaword", 0, "南部爆炸有人"],
    ["arxiv", 5, "我们追踪激活。"],
    ["arxiv", 4, "我们追踪transformer激活。"],
    ["arxiv", 3, "我们追踪。"],
    ["arxiv", 2, "他们追踪激活。"],
    ["arxiv", 1, "我们追踪激活我们追踪激活我们追踪激活我们追踪激活"], // 24 characters
    ["arxiv", 0, "我们。激活。"],
  ])("%s in Chinese: level %i is the last for %j", (source, level, answer) => {
    expect(reach(source, answer, zh)).toBe(level)
    expect(reach(source, answer, { ...zh, ...corrected })).toBe(level)
  })

  it("keep to Python's word characters: é and 3 continue a word, a dash ends one", () => {
    expect(reach("arxiv", "We trace activationsé.")).toBe(3)
    expect(reach("arxiv", "We trace activations3.")).toBe(3)
    expect(reach("arxiv", "We trace activations-é.")).toBe(5)
  })

  it("count a blank at the end as a sentence and blanks as word ends, unless corrected", () => {
    expect(reach("samsum", "Kim put her stuff off. ")).toBe(0)
    expect(reach("samsum", "Kim put her stuff off. ", corrected)).toBe(5)
    expect(reach("gigaword", "two people die  in a coach blast")).toBe(5)
    expect(reach("gigaword", "two people die  in a coach blast", corrected)).toBe(0)
    expect(reach("xsum", "Crews are clearing 2.5 miles in an operation.")).toBe(0)
    expect(reach("xsum", "Crews are clearing 2.5 miles in an operation.", corrected)).toBe(5)
  })

  it("of Chinese gigaword want 在 and no Chinese numeral officially, against the instruction", () => {
    expect(reach("gigaword", "爆炸发生在南部啊", zh)).toBe(5)
    expect(reach("gigaword", "爆炸发生在南部啊", { ...zh, ...corrected })).toBe(4)
    expect(reach("gigaword", "南部爆炸二人身亡", zh)).toBe(2)
    expect(reach("gigaword", "南部爆炸二人身亡", { ...zh, ...corrected })).toBe(5)
  })

  it("of Chinese lengths say at most in the instruction, less than officially", () => {
    const fifteen = "金有琐碎的事金有琐碎的事金有事"
    expect(reach("samsum", fifteen, zh)).toBe(1)
    expect(reach("samsum", `${fifteen.slice(0, 14)}。`, { ...zh, ...corrected })).toBe(5)
  })
})

describe("format 22: paragraphs", () => {
  const format = { category: "format", exampleId: 22 }
  const long = (word: string) => `${repeat(word, 21)}.`
  const plain = [long("oil"), long("wax"), long("dry")].join("\n\n")
  const marked = plain.split("\n\n").map((text, index) => `${index + 1}. ${text}`)
  const closing = "Those are suggestions"

  it("passes officially up to level 3, and never above, as the stop of a marker makes a sentence of one word", () => {
    expect(reach("koala", plain, format)).toBe(3)
    expect(reach("koala", marked.join("\n\n"), format)).toBe(2)
    expect(passes("koala", 5, [...marked, `4. ${repeat("so", 21)} ${closing}`].join("\n\n"), format)).toBe(false)
    expect(reach("koala", `${long("oil")}\n\nWipe.\n\nDry.`, format)).toBe(2)
    expect(reach("koala", `${long("oil")} Wipe. Dry.\n\nWipe.\n\nDry.`, format)).toBe(1)
    expect(reach("koala", `${long("oil")}\n\n${long("wax")}`, format)).toBe(0)
  })

  it("wants four paragraphs at level 5 officially, in Chinese too", () => {
    const text = ["1.", "2.", "3."].map((mark) => `${mark}${"擦".repeat(21)}。`)
    const four = [...text, `4.${"擦".repeat(21)}这些是建议`].join("\n\n")
    expect(reach("koala", text.join("\n\n"), { ...format, ...zh })).toBe(4)
    expect(passes("koala", 5, four, { ...format, ...zh })).toBe(true)
    expect(passes("koala", 5, four, { ...format, ...zh, ...corrected })).toBe(false)
  })

  it("corrected, takes markers and the closing phrase off before it counts, and wants three paragraphs throughout", () => {
    const mended = { ...format, ...corrected }
    expect(reach("koala", plain, mended)).toBe(3)
    expect(reach("koala", marked.join("\n\n"), mended)).toBe(4)
    for (const end of [` ${closing}`, ` ${closing}.`, `\n\n${closing}.`]) {
      expect(passes("koala", 5, marked.join("\n\n") + end, mended)).toBe(true)
      expect(passes("koala", 4, marked.join("\n\n") + end, mended)).toBe(false) // a sentence of three words
    }
    expect(passes("koala", 5, marked.join("\n\n"), mended)).toBe(false)
  })

  it("corrected, allows three sentences in Chinese at levels 2 and 3 as asked, two from 4 on", () => {
    const three = ["1.", "2.", "3."].map((mark) => `${mark}${`${"擦".repeat(21)}。`.repeat(3)}`).join("\n\n")
    expect(passes("koala", 2, three, { ...format, ...zh })).toBe(false)
    expect(passes("koala", 3, three, { ...format, ...zh, ...corrected })).toBe(true)
    expect(passes("koala", 4, three, { ...format, ...zh, ...corrected })).toBe(false)
  })
})

describe("format 30: five points", () => {
  const format = { category: "format", exampleId: 30 }
  const ten = (start: string) => `${start} ${repeat("now", 9)}`
  // Officially the stop of "1." counts within its sentence, which may hold one in all, and a blank after it would end
  // the sentence: so no blank there, and a question mark at the end.
  const point = (index: number) => `**${index}.Growth: ${repeat("now", 9)}?` // 10 words
  const official = [1, 2, 3, 4, 5].map(point).join(" ")
  const lines = (texts: string[]) => texts.map((text, index) => `${index + 1}. **Growth** ${text}.`).join("\n")

  it("checks officially in its own order: mark, five keywords, stops, lengths, a hyphen and ly", () => {
    expect(reach("koala", official, format)).toBe(5)
    expect(reach("koala", `${official} ${ten("well-ly")}.`, format)).toBe(4)
    expect(reach("koala", `${official} Too short.`, format)).toBe(3)
    expect(reach("koala", official.replace("now?", "now.now?"), format)).toBe(2)
    expect(reach("koala", official.replace("**5", "5"), format)).toBe(1)
    expect(reach("koala", official.replaceAll("**", ""), format)).toBe(0)
    expect(reach("koala", `${official} ${ten("happily")}.`, format)).toBe(5)
  })

  it("corrected, follows the instructions: mark, one sentence a point, lengths, no -ly, five keywords", () => {
    const mended = { ...format, ...corrected }
    const good = Array.from({ length: 5 }, () => repeat("now", 9)) // 10 words with the keyword
    expect(reach("koala", lines(good), mended)).toBe(5)
    expect(reach("koala", lines(good.slice(1)), mended)).toBe(4)
    expect(reach("koala", lines(good).replace("now", "only"), mended)).toBe(3)
    expect(reach("koala", lines(good).replace("now now", "now"), mended)).toBe(2)
    expect(reach("koala", lines(good).replace("now now", "now. Now"), mended)).toBe(1)
    expect(reach("koala", lines(good).replaceAll("**", ""), mended)).toBe(0)
  })
})
