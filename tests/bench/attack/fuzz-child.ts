/** Reads files as musc does, one after the other: `{ kind, file, dir }` in, what happened out. */
import { basename, dirname } from "node:path"
import { parseConfig } from "../../../lib/config/config"
import { readSettings } from "../../../lib/config/settings"
import { readInstructions } from "../../../lib/data/formats"
import { readJsonl } from "../../../lib/data/jsonl"
import { fromTrl } from "../../../lib/data/preferences"
import { evalItem } from "../../../lib/data/results"
import { weighedRow } from "../../../lib/data/schema"
import { MuscError } from "../../../lib/errors"
import { readAdapter } from "../../../lib/model/adapter"
import { loadConfig } from "../../../lib/model/config"
import { openSafetensors } from "../../../lib/model/safetensors"
import { writeReport } from "../../../lib/report/report"
import { readState } from "../../../lib/runs/store"
import { verify } from "../../../lib/runs/verify"
import { renderChat } from "../../../lib/text/chat"
import { loadTokenizer } from "../../../lib/text/tokenizer"

async function drain(rows: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of rows);
}

const readers: Record<string, (file: string) => unknown> = {
  seeds: (file) => drain(readInstructions(file)),
  weighed: (file) => drain(readJsonl(file, weighedRow)),
  items: (file) => drain(readJsonl(file, evalItem)),
  settings: (file) => parseConfig(readSettings(file)),
  key: (file) => readState(file.replace(/\.key\.json$/, ".jsonl")),
  preferences: async (file) => {
    for await (const row of readJsonl(file, (await import("zod")).z.looseObject({}))) fromTrl(row, { file })
  },
  safetensors: (file) => {
    const held = openSafetensors(file)
    try {
      for (const name of held.tensors.keys()) held.read(name)
    } finally {
      held.close()
    }
  },
  adapter: (file) => readAdapter(dirname(file), loadConfig(process.argv[2]!)),
  config: (file) => loadConfig(dirname(file)),
  tokenizer: (file) => {
    const tokenizer = loadTokenizer(dirname(file))
    tokenizer.encode("The sailor sings to the clever queen in the garden.".repeat(20))
  },
  template: (file) => renderChat(loadTokenizer(dirname(file)), [{ role: "user", content: "Write a song." }]),
  report: (file) => writeReport(dirname(file)),
  verify: (file) => verify(dirname(file)),
}

process.send!("ready")
process.on("message", async ({ kind, file }: { kind: string; file: string }) => {
  const began = Date.now()
  let problem: string | undefined
  try {
    await readers[kind]!(file)
  } catch (error) {
    if (!(error instanceof MuscError)) problem = `${(error as Error).stack ?? error}`.slice(0, 400)
    else if (error.message.length > 20_000) problem = `a message of ${error.message.length} letters`
  }
  const peakMiB = process.memoryUsage().rss / 2 ** 20
  process.send!({ problem: problem && `${kind} ${basename(file)}: ${problem}`, ms: Date.now() - began, peakMiB })
})
