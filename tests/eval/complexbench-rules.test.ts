import { describe, expect, it } from "vitest"
import { checkRule } from "../../lib/eval/complexbench/rules"

const official = (rule: string, ...objects: string[]) => checkRule(rule, objects, "official")
const corrected = (rule: string, ...objects: string[]) => checkRule(rule, objects, "corrected")

/**
 * Rule, objects that keep it, objects that break it. The verdicts follow from the rule's meaning in the doc of
 * checkRule.
 */
const table: [rule: string, kept: string[], broken: string[]][] = [
  ["keyword:[春天, 花]", ["春天的花"], ["春天的雨"]],
  ["forbidden_word:[春天, 花]", ["雨"], ["花"]],
  ["keyword:[春]\nforbidden_word:[夏]", ["春"], ["春夏"]],
  ["startswith:你好,", ["你好，世界"], ["世界，你好"]],
  ["endswith:再见", ["好吧，再见？"], ["再见吧"]],
  ["startswith:你\nendswith:见", ["你再见。"], ["你好"]],
  ["not endswith:再见", ["再见吧"], ["再见。"]],
  ["match:完成", ["完成。"], ["完成了"]],
  // Four code points: two characters, an emoji, a full stop.
  ["length:[4,4]", ["你好😀。"], ["你好😀"]],
  ["length_word:[2,3]", ["one  two\nthree"], ["one"]],
  ["constraint_punc:[，, 。]", ["好，好。"], ["好，好！"]],
  ['Json:["名", "k"]', ['给你：{"名": 1, "k": {"x": 2}} 好'], ['{"名": 1}']],
  ["Json:[]", ['{"a": 1}'], ["[1]"]],
  ['Json:["a"]', ['{"a": NaN}', '{"a": [-Infinity, "NaN"]}'], ['{"a": nan}', "{NaN: 1}", '{"a": -NaN}']],
  ["model_keyword:[春天, 花]", ["春天的花"], ["春天"]],
  // One or two of the three keywords.
  ["model_keyword_num:[1,2,甲,乙,丙]", ["甲丙"], ["甲乙丙"]],
  ["model_forbidden_word:[甲, 乙]", ["丙"], ["乙"]],
  ["model_length:[2,2]", ["“好的”"], ["好"]],
  ["model_length_word:[2,2]", ["two words"], ["one"]],
  ["model_startswith:导语", ["导语：你好"], ["你好"]],
  ["model_endswith:完成。", ["已完成。"], ["完成了。"]],
  ["model_startswith:首\nmodel_endswith:尾", ["首和尾。"], ["首"]],
  ["model_not_startswith:首", ["尾"], ["首"]],
  ["model_not_endswith:尾", ["首"], ["首尾。"]],
  ["model_constraint_punc:[。]", ["好。"], ["好，好。"]],
  ["model_keyword_each:[场景]", ["场景1", "场景2"], ["场景1", "2"]],
  ["model_keyword_num_each:[1,1,甲,乙]", ["甲", "乙"], ["甲", "甲乙"]],
  ["model_keyword_num_each:[1,2,甲,乙]\nmodel_forbidden_word_each:[丙]", ["甲", "乙"], ["甲", "乙丙"]],
  ["model_forbidden_word_each:[丙]", ["甲", "乙"], ["甲", "丙"]],
  ["model_number_each:[2,3]", ["甲", "乙"], ["甲"]],
  ["model_length_each:[1,2]", ["一", "一二"], ["一", "一二三"]],
  ["model_length_word_each:[1,2]", ["a", "a b"], ["a", "a b c"]],
  ["model_startswith_each:场景", ["场景1", "场景2"], ["场景1", "第2"]],
  // The last of several need not end so; a single one must.
  ["model_endswith_each:；", ["一;", "二；", "三。"], ["一；", "二。", "三。"]],
  ["model_not_endswith_each:尾", ["一", "二"], ["一", "二尾"]],
  ["model_constraint_punc_each:[。]", ["一。", "二"], ["一。", "二！"]],
  ["model_starts_with_list_each:[一, 二]", ["一、春", "二、夏"], ["二、夏", "一、春"]],
]

describe("each rule of the language", () => {
  it.each(table)("%j holds for %j and not for %j", (rule, kept, broken) => {
    for (const check of [official, corrected]) {
      expect(check(rule, ...kept)).toBe(true)
      expect(check(rule, ...broken)).toBe(false)
    }
  })

  it.each(table)("%j fails on nothing, unless it forbids", (rule) => {
    const forbids = /^(model_)?(forbidden|not)/.test(rule)
    for (const check of [official, corrected]) {
      expect(check(rule)).toBe(forbids)
      expect(check(rule, "")).toBe(forbids)
    }
  })
})

describe("texts", () => {
  it("are compared with ASCII punctuation mapped to full width and quotes straight", () => {
    expect(official("keyword:[你好!]", "他说:你好！")).toBe(true)
    expect(official("startswith:“你好”", '"你好",他说')).toBe(true)
    expect(official("endswith:(完)", "结束（完）")).toBe(true)
  })

  it("may stand in a pair of quotes under rules without model_ and under lengths", () => {
    expect(official("startswith:你好", "“你好”")).toBe(true)
    expect(official("model_startswith:你好", "“你好”")).toBe(false)
    expect(corrected("model_startswith:你好", "“你好”")).toBe(true)
    expect(official("model_length:[4,4]", "“你好”")).toBe(true)
    // What forbids must hold for both forms when corrected: without its quotes the text ends so.
    expect(official("not endswith:你好", "“你好”")).toBe(true)
    expect(corrected("not endswith:你好", "“你好”")).toBe(false)
  })

  it("have empty objects passed over by rules about each, but counted by number", () => {
    expect(official("model_length_each:[2,2]", "一二", "", "三四")).toBe(true)
    expect(official("model_number_each:[3,3]", "一二", "", "三四")).toBe(true)
    expect(official("model_starts_with_list_each:[一, 二]", "一")).toBe(false)
    expect(official("model_endswith_each:；", "一。")).toBe(false)
  })

  it("may hold newlines in values of start and end", () => {
    expect(official("startswith:第一行\n第二行", "第一行\n第二行，好")).toBe(true)
    expect(official("startswith:第一行\n第二行\nendswith:好", "第一行\n第二行，坏")).toBe(false)
  })
})

describe("quirks are kept officially and mended otherwise", () => {
  const cases: [quirk: string, rule: string, objects: string[], official: unknown, corrected: unknown][] = [
    ["model_keyword maps only the keyword", "model_keyword:[你好!]", ["你好!"], false, true],
    ["model_keyword_num maps only the keywords", "model_keyword_num:[1,1,a.b]", ["a.b"], false, true],
    ["model_forbidden_word maps only the word", "model_forbidden_word:[你好!]", ["你好!"], true, false],
    ["model_constraint_punc overlooks ASCII marks", "model_constraint_punc:[。]", ["好,好。"], true, false],
    ["keyword_num_each keeps blanks", "model_keyword_num_each:[1,2, 甲, 乙]", ["甲"], false, true],
    ["match maps only the text", "match:好!", ["好!"], false, true],
    ["an empty entry is found everywhere", "forbidden_word:[甲,]", ["乙"], false, true],
    ["a text with None counts as absent", "keyword:[甲]", ["甲 None"], false, true],
    ["each in a plain rule makes it unknown", "keyword:[teacher]", ["teacher"], "unknown", true],
    ["braces in strings count", 'Json:["k"]', ['{"k": "}"}'], false, true],
    ["a brace that closes nothing spoils the object", 'Json:["k"]', ['} {"k": 1}'], false, true],
  ]
  it.each(cases)("%s", (_, rule, objects, one, other) => {
    expect(official(rule, ...objects)).toBe(one)
    expect(corrected(rule, ...objects)).toBe(other)
  })
})

describe("what is not of the language", () => {
  it.each([
    "colour:red",
    "model_keywords:[a]",
    "keyword",
    "",
    "length:[a,b]",
    "keyword:a",
    "model_keyword_num:[a,b]",
    "Json:k",
  ])("%j is unknown", (rule) => {
    expect(official(rule, "text")).toBe("unknown")
    expect(corrected(rule, "text")).toBe("unknown")
  })
})
