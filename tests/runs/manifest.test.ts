import { expect, it } from "vitest"
import { withoutSecrets } from "../../lib/runs/manifest"

it("leaves secrets out of a command line and nothing else", () => {
  const command = (text: string) => withoutSecrets(text.split(" "))
  expect(command("run smoke --thinking-tokens 100 --max-tokens=5 --key-variable KEY --tokenBudget 9")).toBe(
    "run smoke --thinking-tokens 100 --max-tokens=5 --key-variable KEY --tokenBudget 9",
  )
  expect(command("run a --serve vllm serve m --api-key abc --port 1 --hf-token=abc --password abc=d e")).toBe(
    "run a --serve vllm serve m --api-key [left out] --port 1 --hf-token=[left out] --password [left out] e",
  )
  expect(command("eval --endpoint http://me:abc@host/v1")).toBe("eval --endpoint http://[left out]@host/v1")
})
