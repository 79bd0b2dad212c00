import type { JsonObject } from "../data/json-file"

/** What belongs to a run as it is configured now; outputs of earlier settings stay in the folder. */
export interface Current {
  seed(seed: number): boolean
  method(method: string): boolean
  temperature(temperature: number): boolean
  benchmark(name: string): boolean
  /** of a path in the run folder */
  file(path: string): boolean
}

/** What settings name; all of it where they say nothing. */
export function currentOf({
  seed: first,
  repeat = 1,
  methods,
  evalTemperatures,
  benchmarks,
}: JsonObject = {}): Current {
  const listed = (list: unknown) => (entry: unknown) => !Array.isArray(list) || list.includes(entry)
  const counted = typeof first === "number" && typeof repeat === "number"
  const now = {
    seed: (seed: number) => !counted || (seed >= first && seed < first + repeat),
    method: listed(methods),
    temperature: listed(evalTemperatures),
    benchmark: listed(benchmarks),
  }
  return {
    ...now,
    file(path) {
      const seed = /^seed-(-?\d+)\//.exec(path)?.[1]
      if (seed !== undefined && !now.seed(Number(seed))) return false
      const trained = /^seed-[^/]+\/train\/([^/]+)\//.exec(path)?.[1]
      if (trained !== undefined) return now.method(trained)
      const [, benchmark, of] = /^seed-[^/]+\/benchmarks\/([^/]+)\/([^/]+)\//.exec(path) ?? []
      if (benchmark !== undefined) return now.benchmark(benchmark) && now.method(of!)
      const [, method, temperature] = /^seed-[^/]+\/evaluate\/(.+)-T([\d.]+?)(?:\.key\.json|\.jsonl)$/.exec(path) ?? []
      return method === undefined || (now.method(method) && now.temperature(Number(temperature)))
    },
  }
}
