import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { HUB_URL } from "@huggingface/hub"
import { userCache, variable } from "../environment"

/** The hub, or the mirror that HF_ENDPOINT names. */
export const hubEndpoint = (): string => variable("HF_ENDPOINT") ?? HUB_URL

/** HF_TOKEN, or the one that `hf auth login` keeps. */
export function hubToken(): string | undefined {
  const file = variable("HF_TOKEN_PATH") ?? join(variable("HF_HOME") ?? userCache("huggingface"), "token")
  return variable("HF_TOKEN")?.trim() || (existsSync(file) && readFileSync(file, "utf8").trim()) || undefined
}
