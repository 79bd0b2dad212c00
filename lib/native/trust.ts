import { createHash } from "node:crypto"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import path from "node:path"
import { z } from "zod"
import { printOf, writeAtomic } from "../data/files"
import { parseJson } from "../data/jsonl"
import { architecture } from "../machine"

/**
 * What `musc native` fetches is named by version and sha256, and pip is told to take nothing else. What is unpacked
 * into the cache is trusted by the hash of all its files, never by its name.
 */

/** The release that is fetched when this machine has none. */
export const pinnedVersion = "2.21.0"

/** Wheels by requirement: the sha256 that the package index gave when this version was chosen. */
type Wheels = Readonly<Record<string, string>>

/** Of CPython 3.11; the library does not care which Python fetches it. */
const cpuWheels: Readonly<Record<string, Wheels>> = {
  x64: { "tensorflow-cpu==2.21.0": "2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c" },
  arm64: { "tensorflow==2.21.0": "4b24aca16d527a3cf1c37f720c04c484c3d20f4d0fdfa98632ac8b9f3be6eb5c" },
}

/** TensorFlow with its CUDA libraries, x86-64 alone. */
const cudaWheels: Wheels = {
  "tensorflow==2.21.0": "9056fbc9ba04235810b71ae6cbd958a196e8804fb53bbcffbf3e23b56155f124",
  "nvidia-cublas-cu12==12.9.3.13": "d7d51055f161b317c7105ddaae90e71eda059026074ffef93cf7cde2886bfe72",
  "nvidia-cuda-cupti-cu12==12.8.90": "ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182",
  "nvidia-cuda-nvcc-cu12==12.9.86": "5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0",
  "nvidia-cuda-nvrtc-cu12==12.9.86": "210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4",
  "nvidia-cuda-runtime-cu12==12.9.79": "25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3",
  "nvidia-cudnn-cu12==9.28.0.42": "9ff58b7f36dacd0a93e89f8f2957b52466889217963701daa15e577317cfa375",
  "nvidia-cufft-cu12==11.4.1.4": "c67884f2a7d276b4b80eb56a79322a95df592ae5e765cf1243693365ccab4e28",
  "nvidia-curand-cu12==10.3.10.19": "49b274db4780d421bd2ccd362e1415c13887c53c214f0d4b761752b8f9f6aa1e",
  "nvidia-cusolver-cu12==11.7.5.82": "15da72d1340d29b5b3cf3fd100e3cd53421dde36002eda6ed93811af63c40d88",
  "nvidia-cusparse-cu12==12.5.10.65": "73060ce019ac064a057267c585bf1fd5a353734151f87472ff02b2c5c9984e78",
  "nvidia-nccl-cu12==2.32.3": "bb94b2348e4861d5e8aa00b36c3d12d9bdf9c6369b82cbb723de0b582280a21c",
  "nvidia-nvjitlink-cu12==12.9.86": "e3f1171dbdc83c5932a45f0f4c99180a70de9bd2718c1ab77d14104f6d7147f9",
}

/** `hashOfFolder` of what is unpacked of the wheels above. */
const unpacked: Readonly<Record<string, string>> = {
  x64: "b2cf9cfe32fdf45a164fc5f78c94244e22282c9eeb48bcbe3d3a84be23b286a4",
  arm64: "a4ff6b0297fa51328071f3aced5064d4923110f0a50a0324a0bc71c8dcbd85cd",
}

/** What to fetch; undefined where nothing is pinned for this processor. */
export const pinnedWheels = (cuda: boolean): Wheels | undefined =>
  cuda ? (architecture === "x64" ? cudaWheels : undefined) : cpuWheels[architecture]

/** Arguments that have pip take these wheels alone. `folder` is where their list is written. */
export function pipArguments(wheels: Wheels, folder: string): string[] {
  const list = path.join(folder, "requirements.txt")
  const lines = Object.entries(wheels).map(([name, hash]) => `${name} --hash=sha256:${hash}\n`)
  writeFileSync(list, lines.join(""))
  const machine = architecture === "x64" ? "x86_64" : "aarch64"
  const platforms = ["_2_27", "_2_17", "2014"].flatMap((glibc) => ["--platform", `manylinux${glibc}_${machine}`])
  const python = ["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"]
  return ["--no-deps", "--only-binary", ":all:", ...python, ...platforms, "--require-hashes", "--requirement", list]
}

/** sha256 over the paths and contents of all files below a folder, links included by where they lead. */
export async function hashOfFolder(folder: string): Promise<string> {
  const hash = createHash("sha256")
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => !entry.isDirectory()).map((entry) => path.join(entry.parentPath, entry.name))
  const names = files
    .map((file) => path.relative(folder, file).replaceAll(path.sep, "/"))
    .filter((name) => name !== record)
  for (const name of names.sort()) {
    const { bytes, sha256 } = await printOf(path.join(folder, name))
    hash.update(`${name}\n${bytes} ${sha256}\n`)
  }
  return hash.digest("hex")
}

const record = "musc.json"
const recordSchema = z.object({ source: z.string(), sha256: z.string().describe("hashOfFolder") })

/** Writes down what a folder of the cache holds, before it gets its name. */
export async function recordFolder(folder: string, source: string): Promise<void> {
  const content = { source, sha256: await hashOfFolder(folder) }
  await writeAtomic(path.join(folder, record), `${JSON.stringify(content, null, 2)}\n`)
}

/** Whether a folder of the cache holds what was put there; with `pinned`, what this version of musc names. */
export async function isTrusted(folder: string, pinned: boolean): Promise<boolean> {
  try {
    const wanted = pinned
      ? unpacked[architecture]
      : recordSchema.parse(parseJson(readFileSync(path.join(folder, record), "utf8"), { file: folder })).sha256
    return (await hashOfFolder(folder)) === wanted
  } catch {
    return false // no record, or files that cannot be read
  }
}
