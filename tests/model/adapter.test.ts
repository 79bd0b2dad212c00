import { cpSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { type Adapter, linearNames, linearShapes, readAdapter, writeAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { openSafetensors, writeSafetensors } from "../../lib/model/safetensors"

const models = join(__dirname, "../fixtures/models")
const dir = mkdtempSync(join(tmpdir(), "adapter-"))
afterAll(() => rmSync(dir, { recursive: true }))

const q = "base_model.model.model.layers.0.self_attn.q_proj"
const matrix = (rows: number, columns: number) => ({
  shape: [rows, columns] as const,
  data: new Float32Array(rows * columns),
})

/** A copy of the llama fixture's adapter with changed settings. */
function changed(settings: object): string {
  const folder = mkdtempSync(join(dir, "changed-"))
  cpSync(join(models, "llama/adapter"), folder, { recursive: true })
  const file = join(folder, "adapter_config.json")
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...settings }))
  return folder
}

describe("a PEFT folder", () => {
  it.each(["llama", "gemma3"])("of %s, written by PEFT, fits its model", (name) => {
    const config = loadConfig(join(models, name))
    const adapter = readAdapter(join(models, name, "adapter"), config)
    expect(adapter).toMatchObject({ rank: 4, alpha: 6, scale: 1.5, targets: linearNames })
    expect(adapter.tensors.size).toBe(config.layers * linearNames.length)
    const [out, input] = linearShapes(config)["mlp.down_proj"]
    const { A, B } = adapter.tensors.get("layers.1.mlp.down_proj")!
    expect([A.shape, B.shape]).toEqual([
      [4, input],
      [out, 4],
    ])
    const raw = openSafetensors(join(models, name, "adapter/adapter_model.safetensors"))
    expect(B.data).toEqual(raw.read("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"))
    raw.close()
  })

  it("is written so that it reads back the same, with the names that PEFT gives", async () => {
    const adapter = readAdapter(join(models, "llama/adapter"))
    const folder = join(dir, "written")
    await writeAdapter(folder, adapter, "some/model")
    expect(readAdapter(folder)).toEqual(adapter)
    const [ours, theirs] = [folder, join(models, "llama/adapter")].map((from) =>
      openSafetensors(join(from, "adapter_model.safetensors")),
    )
    expect([...ours!.tensors.keys()].sort()).toEqual([...theirs!.tensors.keys()].sort())
    ours!.close()
    theirs!.close()
    const json = JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8"))
    expect(json).toMatchObject({
      peft_type: "LORA",
      r: 4,
      lora_alpha: 6,
      base_model_name_or_path: "some/model",
      use_rslora: false,
    })
    expect(json.target_modules).toEqual(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
  })

  it("keeps rank-stabilised scaling and a choice of layers", async () => {
    const tensors: Adapter["tensors"] = new Map([["layers.3.self_attn.v_proj", { A: matrix(4, 6), B: matrix(2, 4) }]])
    const adapter: Adapter = { rank: 4, alpha: 6, scale: 3, targets: ["self_attn.v_proj"], tensors }
    const folder = join(dir, "stabilised")
    await writeAdapter(folder, adapter, "m")
    expect(readAdapter(folder)).toEqual(adapter)
    await expect(writeAdapter(folder, { ...adapter, scale: 2 }, "m")).rejects.toThrow(/alpha \/ sqrt\(rank\), got 2/)
  })

  it.each([
    ["DoRA", { use_dora: true }, /use_dora must be false, got true/],
    ["another method", { peft_type: "IA3" }, /peft_type must be "LORA", got "IA3"/],
    ["another task", { task_type: "SEQ_CLS" }, /task_type/],
    ["trained biases", { bias: "all" }, /bias must be "none"/],
    ["a start that changes the base", { init_lora_weights: "pissa" }, /init_lora_weights/],
    ["ranks by layer", { rank_pattern: { q_proj: 8 } }, /rank_pattern must be absent/],
    ["whole modules", { modules_to_save: ["lm_head"] }, /modules_to_save must be absent/],
    ["no rank", { r: null }, /r must be a whole number from 1, got null/],
    ["no targets", { target_modules: null }, /target_modules must be a list/],
  ])("with %s is refused", (_, settings, message) => {
    expect(() => readAdapter(changed(settings))).toThrow(message)
  })

  it('may name its targets "all-linear"', () => {
    expect(readAdapter(changed({ target_modules: "all-linear" })).targets).toEqual(linearNames)
  })

  it("of another model is refused with the shape that was expected", () => {
    const config = loadConfig(join(models, "gemma3"))
    expect(() => readAdapter(join(models, "llama/adapter"), config)).toThrow(
      /lora_A.weight must be \[4, 64\], got \[4, 32\]/,
    )
  })

  it.each([
    [
      "an adapted head",
      { "base_model.model.lm_head.lora_A.weight": matrix(4, 32) },
      /not a LoRA tensor of attention or mlp/,
    ],
    ["a layer too many", { [q.replace("0", "9")]: matrix(4, 32) }, /not a LoRA tensor/],
    ["half a pair", { [`${q}.lora_A.weight`]: matrix(4, 32) }, /layers.0.self_attn.q_proj must have both/],
    ["another rank", { [`${q}.lora_A.weight`]: matrix(8, 32) }, /must be \[4, 32\], got \[8, 32\]/],
    [
      "a layer that the model lacks",
      { [`${q.replace("0", "7")}.lora_A.weight`]: matrix(4, 32) },
      /the model has only 3 layers/,
    ],
    ["nothing", {}, /must hold LoRA tensors, got none/],
  ])("with %s is refused", async (_, tensors, message) => {
    const folder = changed({})
    const list = Object.entries(tensors).map(([name, { shape, data }]) => ({
      name,
      shape,
      data,
      dtype: "F32" as const,
    }))
    await writeSafetensors(join(folder, "adapter_model.safetensors"), list)
    expect(() => readAdapter(folder, loadConfig(join(models, "llama")))).toThrow(message)
  })

  it("of the years before safetensors is named, with the cure", () => {
    const folder = changed({})
    renameSync(join(folder, "adapter_model.safetensors"), join(folder, "adapter_model.bin"))
    expect(() => readAdapter(folder)).toThrow(/got only adapter_model.bin, a Python pickle; save it again with PEFT/)
  })

  it("of a base with images is read under old and new names, and written so that PEFT finds the text model alone", async () => {
    const adapter = readAdapter(join(models, "llama/adapter"))
    const folder = join(dir, "with-images")
    await writeAdapter(folder, { ...adapter, multimodal: true }, "some/model")
    expect(readAdapter(folder)).toEqual({ ...adapter, multimodal: true })
    const raw = openSafetensors(join(folder, "adapter_model.safetensors"))
    expect([...raw.tensors.keys()][0]).toMatch(
      /^base_model\.model\.model\.language_model\.layers\.0\.[a-z_]+\.[a-z_]+\.lora_A/,
    )
    raw.close()
    const { target_modules } = JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8"))
    const named = (module: string) => new RegExp(`^(?:${target_modules})$`).test(module)
    expect(named("model.language_model.layers.3.self_attn.q_proj")).toBe(true)
    expect(named("model.vision_tower.encoder.layers.3.self_attn.q_proj")).toBe(false)
  })
})
