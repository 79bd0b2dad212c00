import { expect, it } from "vitest"
import type { GenerateRequest } from "../../lib/engine/engine"
import { type ScriptedAnswer, scripted } from "../../lib/engine/scripted"
import { judgeGrader } from "../../lib/runs/graders"

const row = {
  ...{ id: "a", instruction: "Sum up the message.", input: "Milk is out.", source: "test", calls: {} },
  constraints: ["Is it a summary of the message?", "Is it short?"],
}
const asked = (request: GenerateRequest) => request.messages.at(-1)!.content

it("shows a judge the instruction and its text with each question, but the embedded model the bare question", async () => {
  const prompts: string[] = []
  const engine = scripted((request) => {
    prompts.push(asked(request))
    return "yes"
  })
  const options = { maxTokens: 8 }
  const verdicts = await judgeGrader(engine, options)(row, "No milk.")
  expect(verdicts.map(({ satisfied }) => satisfied)).toEqual([true, true])
  await judgeGrader({ ...engine, maxShots: 0 }, options)(row, "No milk.")
  const shown = /Instruction: Sum up the message\.\n\nText: Milk is out\.\n\nQuestion: Is it/
  expect(prompts.map((prompt) => shown.test(prompt))).toEqual([true, true, false, false])
  expect(prompts[2]).toContain("Question: Is it a summary of the message?\n\nInput: Milk is out.\n\nAnswer: No milk.")
})

it("takes no verdict from a refusal, from what a filter left or from the last word before the token limit", async () => {
  const replies: ScriptedAnswer[] = [
    { text: "No, I will not judge that.", problem: "refused by the model" },
    { text: "yes", problem: "stopped by the server's content filter" },
    { text: '"No milk"\nno', finish: "length" },
    { text: "Yes, as it names the mi", finish: "length" },
  ]
  const four = { ...row, constraints: ["1?", "2?", "3?", "4?"] }
  const verdicts = await judgeGrader(
    scripted(() => replies.shift()!),
    { maxTokens: 8 },
  )(four, "No milk.")
  expect(verdicts.map(({ satisfied }) => satisfied)).toEqual([null, null, null, true])
})
