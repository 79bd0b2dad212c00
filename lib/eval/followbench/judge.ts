import type { Judgement, JudgeRequest, Scoring } from "../benchmark"
import { withoutMarks } from "../python"
import { type Language, strip } from "./text"

/** The categories, in the order of the paper; each has a file `<category>_constraints.json`. */
export const categories = ["content", "situation", "style", "format", "mixed", "example"] as const
export type Category = (typeof categories)[number]

const kinds: Record<Language, Partial<Record<Category, string>>> = {
  en: {
    content: "content constraint",
    situation: "situation constraint (what is told about a particular situation or background)",
    style: "style constraint",
    format: "format constraint",
  },
  zh: { content: "内容约束", situation: "情景约束（对特定情况或背景的描述）", style: "风格约束", format: "格式约束" },
}

const prompts = {
  en: (kind: string, level: number, versions: string, answer: string) => `\
An initial instruction was extended in ${level} ${level === 1 ? "step, which" : "steps, each of which"} added one ${kind}. \
All versions follow in order, then an answer to the last one.

${versions}

# Answer to the last instruction
${answer}

# Task
1) Name the constraint that each step added, ${level} in all.
2) Decide for each added constraint whether the answer satisfies it.
3) As the final line, print only a Python list of ${level} ${level === 1 ? "string" : "strings"}, 'YES' or 'NO', one for \
each added constraint in order.`,
  zh: (kind: string, level: number, versions: string, answer: string) => `\
一条初始指令经过${level}步扩展，每一步增加一个${kind}。下面依次列出所有版本，最后是对最后一条指令的回答。

${versions}

# 对最后一条指令的回答
${answer}

# 任务
1) 找出每一步增加的约束，共${level}个。
2) 逐个判断回答是否满足所增加的约束。
3) 最后一行只输出一个含${level}个字符串（'YES'或'NO'）的Python列表，按顺序对应各个约束。`,
}

const headers = {
  en: (added: number) => `Initial Instruction${added ? ` + ${added} constraint${added === 1 ? "" : "s"}` : ""}`,
  zh: (added: number) => `初始指令${added ? ` + ${added}个约束` : ""}`,
}

/**
 * The one question on an answer. Its structure is the official one (the kind of constraint and how many were added, the
 * whole path of instructions, the answer, three steps, a list as the last line); the wording is our own. Temperature 0
 * and 1024 tokens are official. `path` holds the instructions of levels 0 to `path.length - 1`; the answer is to the
 * last.
 */
export function judgeRequest(
  language: Language,
  category: Category,
  path: readonly string[],
  answer: string,
): JudgeRequest {
  const kind = kinds[language][category] ?? (language === "en" ? "constraint" : "约束")
  const versions = path.map((text, added) => `# ${headers[language](added)}\n${text}`).join("\n\n")
  const content = prompts[language](kind, path.length - 1, versions, answer)
  return { messages: [{ role: "user", content }], temperature: 0, maxTokens: 1024 }
}

const refused = {
  en: ["NO", "PARTIAL", "MAYBE", "UNKNOWN", "N/A"],
  zh: ["NO", "PARTIAL", "PARTIALLY", "MAYBE", "UNKNOWN"],
}
const item = /\s*(?:'([^']*)'|"([^"]*)")\s*(?:,|$)/y

/**
 * The verdicts in a reply's last line, one a constraint; undefined where the official parser fails. Level 1: YES
 * anywhere in the line, else NO; corrected, a line with both has none unless its list has one. Higher levels: a Python
 * list of `level` known words. The Chinese parser also takes “ ” quotes, words without quotes, and longer lists, whose
 * rest it drops.
 */
export function verdicts(
  reply: string,
  level: number,
  language: Language,
  scoring: Scoring = "official",
): boolean[] | undefined {
  const straight = language === "zh" ? reply.replace(/[“”]/g, '"') : reply
  const line = strip(withoutMarks(straight, "`", "`"))
    .split("\n")
    .at(-1)!
  const hasBoth = line.includes("YES") && line.includes("NO")
  if (level === 1 && !(hasBoth && scoring === "corrected"))
    return line.includes("YES") ? [true] : line.includes("NO") ? [false] : undefined
  const [open, close] = [line.indexOf("["), line.lastIndexOf("]")]
  if (open < 0 || close < open) return undefined
  const list = line.slice(open + 1, close)
  const quoted = language === "zh" && !/['"]/.test(list) ? list.replace(/YES|NO/g, "'$&'") : list
  const words = strings(quoted)
  if (!words || words.length < level || (words.length > level && language === "en")) return undefined
  const verdictWords = words.slice(0, level)
  return verdictWords.every((word) => word === "YES" || refused[language].includes(word))
    ? verdictWords.map((word) => word === "YES")
    : undefined
}

/**
 * The strings of a comma-separated list, a comma after the last one allowed; undefined where anything else stands
 * there.
 */
function strings(list: string): string[] | undefined {
  const verdictList: string[] = []
  const text = strip(list)
  for (let at = 0; at < text.length; at = item.lastIndex) {
    item.lastIndex = at
    const match = item.exec(text)
    if (!match) return undefined
    verdictList.push(match[1] ?? match[2]!)
  }
  return verdictList
}

/**
 * The verdicts of the first reply that has some, null when none has. Corrected: a reply that the token limit cut off has
 * none, as its last line is a part of the reasoning.
 */
export function firstVerdicts(
  judgement: Judgement,
  level: number,
  language: Language,
  scoring: Scoring,
): boolean[] | null {
  for (const { text, cut } of judgement.replies) {
    if (cut && scoring === "corrected") continue
    const found = verdicts(text, level, language, scoring)
    if (found) return found
  }
  return null
}
