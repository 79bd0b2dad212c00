import type { z } from "zod"
import {
  type CorruptedRow,
  corruptedRow,
  type DecomposedRow,
  decomposedRow,
  type InstructionRow,
  instructionRow,
  type PairRow,
  pairRow,
  type RecombinedRow,
  recombinedRow,
  type WeighedRow,
  weighedRow,
} from "../data/schema"
import type { Generator, SignalScorer } from "../engine/engine"
import { type CorruptOptions, corrupt } from "./corrupt"
import { type DecomposeOptions, decompose } from "./decompose"
import { type RecombineOptions, recombine } from "./recombine"
import { type RespondOptions, respond } from "./respond"
import type { Outcome } from "./row"
import { type WeighOptions, weigh } from "./weigh"

/**
 * The stages that work on rows, each once: the library's `makePairs`, `musc run`, the stage commands and the dry run
 * all go through this table.
 */

/** A stage over rows: what it reads, what it writes, and how. */
export interface Stage<In extends InstructionRow, Out extends InstructionRow, Options, Engine> {
  /** Part of the key of the stage's stored output. To be raised when a change makes the stage write something else. */
  version: number
  input: z.ZodType<In>
  output: z.ZodType<Out>
  /** What the stage asks of a model: texts, or the token signals of answers. */
  needs: "text" | "signals"
  work(engine: Engine, row: In, options: Options): Promise<Outcome<Out>>
}

/** The options of each stage. They are part of the key of its output, so nothing else may change what it writes. */
export interface StageOptions {
  decompose: DecomposeOptions
  corrupt: CorruptOptions
  recombine: RecombineOptions
  respond: RespondOptions
  weigh: WeighOptions
}

/** A stage of the table by name. */
export type RowStageName = keyof StageOptions

type TextStage<In extends InstructionRow, Out extends InstructionRow, Name extends RowStageName> = Stage<
  In,
  Out,
  StageOptions[Name],
  Generator
>

const decomposeStage: TextStage<InstructionRow, DecomposedRow, "decompose"> = {
  version: 4,
  input: instructionRow,
  output: decomposedRow,
  needs: "text",
  work: decompose,
}

const corruptStage: TextStage<DecomposedRow, CorruptedRow, "corrupt"> = {
  version: 4,
  input: decomposedRow,
  output: corruptedRow,
  needs: "text",
  work: corrupt,
}

const recombineStage: TextStage<CorruptedRow, RecombinedRow, "recombine"> = {
  version: 4,
  input: corruptedRow,
  output: recombinedRow,
  needs: "text",
  work: recombine,
}

const respondStage: TextStage<RecombinedRow, PairRow, "respond"> = {
  version: 2,
  input: recombinedRow,
  output: pairRow,
  needs: "text",
  work: respond,
}

const weighStage: Stage<PairRow, WeighedRow, WeighOptions, SignalScorer> = {
  version: 2,
  input: pairRow,
  output: weighedRow,
  needs: "signals",
  work: async (engine, row, options) => {
    const weighed = await weigh(engine, row, options)
    return weighed.failure ? weighed : shortNumbers(weighed)
  },
}

export const stages = {
  decompose: decomposeStage,
  corrupt: corruptStage,
  recombine: recombineStage,
  respond: respondStage,
  weigh: weighStage,
} as const

/** The stages that a server which writes text can do, in order. */
export const textStages = ["decompose", "corrupt", "recombine", "respond"] as const

/** Version of stage 0 (seed files, self-instruct), whose rows come from no other stage. */
export const sourceVersion = 4

/** A stage of the table without the types of its rows, for code that treats all alike. */
export type AnyRowStage = Stage<InstructionRow, InstructionRow, object, Generator & SignalScorer>

/** A stage by its name, see AnyRowStage. */
export const stageNamed = (name: RowStageName): AnyRowStage => stages[name] as unknown as AnyRowStage

/** A weighed row with numbers to 7 significant digits, all that 32-bit floats hold: a third of the file. */
export function shortNumbers<Row extends InstructionRow>(row: Row): Row {
  const rounded = (_: string, value: unknown) => (typeof value === "number" ? Number(value.toPrecision(7)) : value)
  const { signals, weights } = row
  return { ...row, ...JSON.parse(JSON.stringify({ signals, weights }, rounded)) }
}
