import { createHash } from "node:crypto"
import { expect, it } from "vitest"
import { Places } from "../../lib/engine/places"

const key = (i: number) => createHash("sha256").update(`${i}`).digest("hex")

it("places of calls are found by their keys, the last one that was set, also behind 4 GiB", () => {
  const places = new Places()
  const start = (i: number) => i * 2 ** 20
  for (let i = 0; i < 20_000; i++) places.set(key(i), { start: start(i), bytes: i + 1 })
  for (let i = 0; i < 20_000; i++) expect(places.get(key(i))).toEqual({ start: start(i), bytes: i + 1 })
  expect(places.get(key(20_000))).toBeUndefined()
  places.set(key(7), { start: 5, bytes: 6 })
  expect(places.get(key(7))).toEqual({ start: 5, bytes: 6 })
  expect(places.size).toBe(20_000)
})

it("keys that begin alike share a place, which the reader tells apart", () => {
  const places = new Places()
  places.set(`${"a".repeat(16)}1`, { start: 1, bytes: 1 })
  places.set(`${"a".repeat(16)}2`, { start: 2, bytes: 2 })
  expect(places.get(`${"a".repeat(16)}1`)).toEqual({ start: 2, bytes: 2 })
  expect(places.size).toBe(1)
})
