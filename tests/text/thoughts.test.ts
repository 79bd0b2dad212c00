import { describe, expect, it } from "vitest"
import { isThoughtMark, openedThoughts, splitThoughts } from "../../lib/text/thoughts"

/** Right values: what the chat templates of these models keep of an earlier turn, read from the templates. */
const thinks: [string, string, string][] = [
  ["Qwen3 and DeepSeek-R1", "<think>\nplan, plan\n</think>\n\nhello there", "hello there"],
  ["an opening tag in the prompt", "plan, plan\n</think>\n\nhello there", "hello there"],
  ["an opening tag in the prompt, all on a line", "plan</think>hello there", "hello there"],
  ["thinking switched off", "<think>\n\n</think>\n\nhello there", "hello there"],
  ["blanks before the tag", "\n \n<think>plan</think> hello there", "hello there"],
  ["two blocks", "<think>one</think>\n<think>two</think>\n\nhello there", "hello there"],
  ["a block between lines", "hello\n<think>\nplan\n</think>\nthere", "hello\nthere"],
  ["Magistral", "[THINK]plan[/THINK]hello there", "hello there"],
  ["Seed-OSS", "<seed:think>plan</seed:think>hello there", "hello there"],
  ["EXAONE Deep", "<thought>\nplan\n</thought>\n\nhello there", "hello there"],
  ["Kimi-VL", "◁think▷plan◁/think▷hello there", "hello there"],
  [
    "OpenThinker",
    "<|begin_of_thought|>\nplan\n<|end_of_thought|>\n\n<|begin_of_solution|>\nhello there<|end_of_solution|>",
    "hello there",
  ],
  [
    "gpt-oss with special tokens",
    "<|channel|>analysis<|message|>plan<|end|><|start|>assistant<|channel|>final<|message|>hello there",
    "hello there",
  ],
  [
    "gpt-oss with its last token and a channel in between",
    "<|channel|>analysis<|message|>plan<|end|><|start|>assistant<|channel|>commentary<|message|>now<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>hello there<|return|>",
    "hello there",
  ],
  ["gpt-oss that did not think", "<|start|>assistant<|channel|>final<|message|>hello there", "hello there"],
  ["gpt-oss without special tokens", "analysisThe user says hi.assistantfinalhello there", "hello there"],
  ["thoughts that quote their own tag", "The tag `</think>` ends it.\n</think>\n\nhello there", "hello there"],
  ["Reka Flash", "<reasoning>plan</reasoning>\nhello there", "hello there"],
  ["Hunyuan", "<think>\nplan\n</think>\n<answer>\nhello there\n</answer>", "hello there\n"],
  ["ERNIE 4.5", "<think>\nplan\n</think>\n\n<response>\nhello there\n</response>\n", "hello there\n"],
  ["Apertus", "<|inner_prefix|>plan<|inner_suffix|>hello there", "hello there"],
  ["Granite 3.2", "Here is my thought process: plan\n\nHere is my response: hello there", "hello there"],
  ["HuatuoGPT-o1", "## Thinking\n\nplan\n\n## Final Response\n\nhello there", "hello there"],
  ["capitals and a byte-order mark", "\uFEFF<THINK>plan</THINK>hello there", "hello there"],
  ["a quoted closing tag inside", "<think>`</think>` ends it.</think>\n\nhello there", "hello there"],
  ["a closing tag spoken of inside", "<think>Then </think> comes.\n</think>\nhello there", "hello there"],
  ["a closing tag in code of the answer", "<think>plan</think>\n```\n</think>\n```", "```\n</think>\n```"],
  ["an indented answer", "<think>plan</think>\n\n    if x:\n        y", "    if x:\n        y"],
  ["an answer that mentions the tag", "<think>plan</think>\n\nEnd it by </think>.", "End it by </think>."],
  ["blocks in each other on a line", "<think>a<think>b</think>c</think>hello there", "hello there"],
  ["an opening tag spoken of inside", "<think>Use <think> first</think>\n\nEnd it by </think>.", "End it by </think>."],
  ["a second opening tag", "<think>\n<think>\nplan\n</think>\n\nhello there", "hello there"],
  ["a closing tag of another name", "<thinking>plan</think>\nhello there", "hello there"],
  ["blanks and attributes in tags", '<think type="long" >plan</think >hello there', "hello there"],
  ["Reflection", "<thinking>plan</thinking>\n<output>\nhello there\n</output>", "hello there\n"],
  ["scratchpads", "<scratchpad>plan</scratchpad>\nhello there", "hello there"],
  ["tokens with a slash", "<|thinking|>plan<|/thinking|>hello there", "hello there"],
  ["tokens of beginning and end", "<|reasoning_start|>plan<|reasoning_end|>hello there", "hello there"],
  ["Marco-o1", "<Thought>\nplan\n</Thought>\n\n<Output>\nhello there\n</Output>", "hello there\n"],
  ["s1", "<|im_start|>think\nplan\n<|im_start|>answer\nhello there", "hello there"],
  [
    "models of Unsloth's notebooks",
    "<start_working_out>plan<end_working_out>\n<SOLUTION>\nhello there\n</SOLUTION>",
    "hello there\n",
  ],
  ["Hermes", "<scratch_pad>plan</scratch_pad>\nhello there", "hello there"],
  [
    "Granite 3.2 with curly quotes",
    "Here’s my thought process: plan\n\nHere’s my response: hello there",
    "hello there",
  ],
  ["thoughts that quote a verdict", "<think>\nThe rules say NO.\n</think>\n\nYes.", "Yes."],
]

describe("thoughts", () => {
  it.each(thinks)("are no part of the answer: %s", (_, text, answer) => {
    const split = splitThoughts(text)
    expect(split.answer).toBe(answer)
    expect(split.thoughts).not.toBe("")
    expect(split.unfinished).toBe(false)
  })

  it.each([
    "<think>\nplan, pl",
    "  <think>",
    "[THINK]plan",
    "<|channel|>analysis<|message|>plan",
    "<think>a</think><think>b",
  ])("that are cut off leave no answer: %s", (text) =>
    expect(splitThoughts(text)).toEqual({ answer: "", thoughts: text, unfinished: true }),
  )

  it.each([
    "hello there",
    "",
    "\n\n  fine answer\n",
    "Write <think> and then </think> around it.",
    "Close it by `</think>`, then go on.",
    'The tag is "</think>".',
    "```html\n<think>\n</think>\n```\nThat is the form.",
    "I think so.",
    "analysis of the assistant: final",
    "<thoughtful>yes</thoughtful>",
    "<answer>hello</answer>",
    "Here is my thought process: I add both.",
    "## Thinking\n\nIt is hard.",
    "Here is my response: hello.",
  ])("are not seen in an answer that has none: %j", (text) =>
    expect(splitThoughts(text)).toEqual({ answer: text, thoughts: "", unfinished: false }),
  )

  it("and answer together are the whole text but for the blank lines between them", () => {
    const { answer, thoughts } = splitThoughts("<think>\nplan\n</think>\n\nhello")
    expect(`${thoughts}\n\n${answer}`).toBe("<think>\nplan\n</think>\n\nhello")
  })

  it("take time that grows with the text, not faster", () => {
    const began = process.cpuUsage() // the machine may do much else
    for (const piece of [
      ...["<think>", "</think>", "\n<think>\n", "`</think>`", "\n```\n<think>\n```\n", "<think><think>a</think>"],
      ...["<think></thought>", "<think>a</think>", "<think><think></think></think>"],
    ]) {
      splitThoughts(piece.repeat(10_000))
      splitThoughts(`x${piece.repeat(10_000)}`)
    }
    const { user, system } = process.cpuUsage(began)
    expect((user + system) / 1000).toBeLessThan(2000)
  })

  it("may be opened by the prompt", () => {
    expect(openedThoughts("<|im_start|>assistant\n<think>\n")).toBe("<think>\n")
    expect(openedThoughts("<|im_start|>assistant\n<think>\n\n</think>\n\n")).toBe("")
    expect(openedThoughts("<|im_start|>assistant\n")).toBe("")
  })
})

describe("a token that marks thoughts", () => {
  it.each(["<think>", "</think>", "[THINK]", "[/THINK]", "<|channel|>", "<|START_THINKING|>"])(
    "is known: %s",
    (token) => {
      expect(isThoughtMark(token)).toBe(true)
    },
  )
  it.each(["<|im_end|>", "<s>", "think", "<|end|>", "a <think>"])("is not mistaken: %s", (token) => {
    expect(isThoughtMark(token)).toBe(false)
  })
})
