import { join } from "node:path"
import { expect, it } from "vitest"
import { usage } from "./arguments"

it.each(["memory", "kill", "torch", "server", "attack/attack"])("%s shows how it is called", (name) => {
  const shown = usage(join(__dirname, `${name}.ts`))
  expect(shown).toMatch(/^ {4}(npx tsx tests\/bench\/|npm run )\S/m)
  expect(shown).not.toMatch(/^ ?\*/m)
})
