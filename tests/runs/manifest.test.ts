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
  expect(command("run a --serve 'env HF_TOKEN=abc AWS_SECRET_ACCESS_KEY=abc vllm serve m' --api_keys a,b")).toBe(
    "run a --serve 'env HF_TOKEN=[left out] AWS_SECRET_ACCESS_KEY=[left out] vllm serve m' --api_keys [left out]",
  )
  expect(command("run a --serve 'x --header Authorization: Bearer abc' --set model=hf_abcdefgh12345678/x")).toBe(
    "run a --serve 'x --header Authorization: Bearer [left out]' --set model=[left out]/x",
  )
  expect(command("eval --endpoint http://me:abc@host/v1")).toBe("eval --endpoint http://[left out]@host/v1")
})
