import type { Scoring } from "../benchmark"
import { strip } from "../python"

/**
 * What the judge of ComplexBench is asked, and how its replies are read. Structure, rules and markers are those of the
 * official prompts (thu-coai/ComplexBench), the wording and the examples are ours: figures are near to published ones
 * but not comparable to the last digit. The instruction is cut to 6000 and the response to 4000 code points, as
 * officially.
 */
export interface Asked {
  instruction: string
  response: string
  question: string
}

const cut = (text: string, length: number) => [...text].slice(0, length).join("")

const parts = ({ instruction, response, question }: Asked) => `【输入指令】
${cut(instruction, 6000)}

【模型回复】
${cut(response, 4000)}

【问题】
${question}`

/** Asks a yes/no question that no rule decides. */
export function questionPrompt(asked: Asked): string {
  return `你是一名严格而公正的评审。请阅读输入指令与模型回复，只就最后的问题作出判断，回答“是”或“否”。

判断原则：
- 问题只对应输入指令里的某一项要求。只看这一项做到了没有，其他要求有没有做到都不影响判断。
- 完全做到、没有任何瑕疵，才能回答“是”。有一处小错、有歧义、只做到一部分，都回答“否”。
- 回复里没有可以用来回答问题的内容，也回答“否”。

补充规则：
1. 问到是否分点：必须有数字或项目符号之类的明确标记才算分点，只用“首先”“其次”等连接词不算。
2. 问到是否使用某种语言：除非输入指令要求使用多种语言，否则必须只使用这种语言，夹杂其他语言的词语就回答“否”。
3. 问到“每个”“都”“所有”：要逐个检查，有一个不满足就回答“否”。
4. 问到“模型是否正确判断……”：看模型实际执行了输入指令中的哪一个分支。走的是问题所说情况对应的分支，就回答“是”；走了别的分支，就回答“否”。

输出格式（先分析，后答案）：
分析：……
答案：是 或 答案：否

${parts(asked)}`
}

/** Asks for the text that a rule is to be applied to; `each` when the rule is about several objects. */
export function extractionPrompt(asked: Asked, each: boolean): string {
  const answer = each
    ? `- 评分对象有多个时，按出现顺序全部列出，用“||”隔开。`
    : `- 评分对象就是整个模型回复时，只写“all”。`
  return `你负责从文本中定位片段。下面有一条输入指令、一个模型回复和一个问题，问题用来检查模型回复是否满足输入指令的某项要求。
请找出模型回复中这个问题所考察的那一部分（评分对象）。

要求：
- 只能原样照抄模型回复中连续的文字，不增、不删、不改、不拼接。
- 评分对象是被考察的部分，不是符合要求的部分；即使它不符合要求，也要照抄。你不需要判断它是否符合要求。
- 问到开头，就抄第一句话；问到结尾，就抄最后一句话。标题、字段名等说明性的文字不算在内容里。
${answer}
- 模型回复中没有评分对象时，只写“None”。

例：模型回复为“标题：春天来了
今天的风很暖。我们去公园吧！”，问题为“正文是否以‘再见’结尾？”，评分对象是正文的最后一句话，应输出：
分析：问题考察正文的结尾，即最后一句话。
评分对象：我们去公园吧！

输出格式（最后一项之后不要再写任何内容）：
分析：……
评分对象：……

${parts(asked)}`
}

/**
 * The verdict of a reply. Official: exactly one 答案：是 or 答案：否 decides; else it is yes when 是 stands somewhere and 否
 * nowhere. Corrected: all markers (any colon, blanks, bold) must agree and there must be one, or the verdict is null;
 * the form that the judge was asked for (是 或 否) is none.
 */
export function parseVerdict(reply: string, scoring: Scoring): boolean | null {
  if (scoring === "official") {
    const answers = reply.match(/答案：[是否]/g) ?? []
    if (answers.length === 1) return answers[0] === "答案：是"
    return reply.includes("是") && !reply.includes("否")
  }
  const verdicts = new Set(
    [...reply.matchAll(/答案[*\s]*[：:][*\s]*([是否])(?!否|[*\s]*[或/／、])/g)].map((match) => match[1]),
  )
  return verdicts.size === 1 ? verdicts.has("是") : null
}

/** Heading that the official script looks for first, in judges' replies that repeat the form of their task. */
const HEADING = "【模型回复中评分问题的评测对象】\n"

/**
 * The objects that a reply extracts from `response`. Both cut a closing note and take what follows the last 评分对象：.
 * Official: behind the last heading 【模型回复中评分问题的评测对象】 alone; else what follows the last 评测对象：, else the
 * last ：, else all of it; what starts with "all" is the whole response, what holds "None" is nothing. Corrected: null without the marker
 * or a heading 【… 评分对象】 of any wording; all and None must stand alone.
 */
export function parseExtraction(reply: string, response: string, scoring: Scoring): string[] | null {
  const official = scoring === "official"
  const headed = official ? reply.slice(Math.max(0, endOfLast(reply, HEADING))) : reply
  const noted = ["请注意", "**注意", "注意"].reduce((text, note) => before(text, `\n\n${note}`), headed)
  const text = official
    ? noted
    : noted.replace(/评[分测]对象[*\s]*[：:]\**|【[^【】\n]*评[分测]对象[^【】\n]*】[*\s]*[：:]?/g, "评分对象：")
  const marker = (official ? ["评分对象：", "评测对象：", "："] : ["评分对象："]).find((mark) => text.includes(mark))
  if (!official && !marker) return null
  const extracted = marker === undefined ? text : text.slice(endOfLast(text, marker))
  const word = extracted.length > 100 ? extracted : extracted.replace(/^[\s"“'`]+|[\s"”'`。.]+$/g, "")
  if (official ? extracted.startsWith("all") : /^all$/i.test(word)) return [response]
  if (official ? extracted.includes("None") : /^none$/i.test(word)) return []
  return extracted.split("||").map(strip)
}

/** Where the last `mark` ends; -1 without one. */
function endOfLast(text: string, mark: string): number {
  const at = text.lastIndexOf(mark)
  return at < 0 ? -1 : at + mark.length
}

/** The text before the last `mark`, all of it without one. */
function before(text: string, mark: string): string {
  const at = text.lastIndexOf(mark)
  return at < 0 ? text : text.slice(0, at)
}
