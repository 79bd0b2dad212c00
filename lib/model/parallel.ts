import { onGpu } from "../device/tf"
import { runsGraphs } from "../graph/builder"

/** Size of a model (f32) from which its products are large enough for all threads to share them well. */
const sharedBytes = 512 * 2 ** 20

/** Whether products with a model of so many parameters are too small for all threads to share them well. */
export const isSmall = (parameters: number): boolean => 4 * parameters < sharedBytes

/**
 * Whether several processes with one thread each get more done with a model of so many parameters than one process with
 * all threads: a small one on a CPU.
 */
export function gainsByProcesses(parameters: number): boolean {
  return !onGpu() && isSmall(parameters)
}

/** Whether threads of one process compute two batches of it side by side, by graphs, where several processes would gain. */
export const sideBySide = (parameters: number): boolean => runsGraphs() && gainsByProcesses(parameters)
