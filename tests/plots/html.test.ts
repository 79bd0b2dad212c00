import { createHash } from "node:crypto"
import { describe, expect, it } from "vitest"
import type { Edit, TokenSignals, WeighedRow } from "../../lib/data/schema"
import { answersHtml, diffHtml, editsHtml, wordDiff } from "../../lib/plots/diff"
import { mapLegend, pairMap, shade, tokenStyle } from "../../lib/plots/heatmap"
import { figureBlock, html, jsonForScript, page, table } from "../../lib/plots/html"
import { rng } from "../../lib/rng"

const hostile = `</script><script>alert(1)</script><!-- " ' & <img src=x onerror=alert(2)>`

describe("html", () => {
  it("escapes everything put into a template and leaves HTML as it is", () => {
    expect(html`<p title="${hostile}">${hostile}</p>`.text).not.toMatch(/<(?!\/?p\b)|"(?=[^>]*"[^>]*")/)
    expect(html`${[html`<b>${"<"}</b>`, null, false, undefined, 0]}`.text).toBe("<b>&lt;</b>0")
  })

  it("writes JSON that cannot end its script element and reads back the same", () => {
    const value = { text: `${hostile}\u2028` }
    expect(jsonForScript(value)).not.toMatch(/<|\u2028/)
    expect(JSON.parse(jsonForScript(value))).toEqual(value)
  })

  it("makes pages whose policy allows their own scripts alone, and no network", () => {
    const text = page(hostile, html`${figureBlock({ data: [], layout: { height: 100 } })}`, ["1 + 1 // </script><!--"])
    const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(text)![1]!
    expect(policy).toMatch(/^default-src 'none';/)
    expect(policy).not.toMatch(/http|\*|unsafe-eval|script-src[^;]*unsafe-inline/)
    const scripts = [...text.matchAll(/<script>([\s\S]*?)<\/script>/g)].map(([, code]) => code!)
    expect(scripts).toHaveLength(3)
    for (const code of scripts) expect(policy).toContain(createHash("sha256").update(code).digest("base64"))
    expect(text).toContain("<title>&lt;/script&gt;&lt;script&gt;")
  })

  it("escapes the cells of tables", () => {
    expect(table([hostile], [[hostile]]).text).not.toMatch(/<(script|img|!--)/)
  })
})

describe("word difference", () => {
  const side = (before: string, after: string, kind: "old" | "new") =>
    wordDiff(before, after)
      .filter((part) => part.kind === "same" || part.kind === kind)
      .map(({ text }) => text)
      .join("")

  it("marks what was taken away and what was put in", () => {
    expect(wordDiff("Write about a fox. Use the word cake.", "Write about a fox. Avoid the word cake.")).toEqual([
      { kind: "same", text: "Write about a fox. " },
      { kind: "old", text: "Use" },
      { kind: "new", text: "Avoid" },
      { kind: "same", text: " the word cake." },
    ])
    expect(wordDiff("a b", "a b")).toEqual([{ kind: "same", text: "a b" }])
    expect(wordDiff("", "new")).toEqual([{ kind: "new", text: "new" }])
  })

  it("keeps both texts whole, whatever they are", () => {
    const random = rng(1, "diff")
    const text = () =>
      Array.from({ length: random.int(30) }, () => random.pick(["aa", "bb", "cathedral", " ", "\n", ".", "é"])).join("")
    for (let i = 0; i < 300; i++) {
      const [a, b] = [text(), text()]
      expect(side(a, b, "old")).toBe(a)
      expect(side(a, b, "new")).toBe(b)
    }
    const long = Array.from({ length: 3000 }, (_, i) => `w${i}`)
    const [a, b] = [long.join(" "), [...long].reverse().join(" ")]
    expect(side(a, b, "old")).toBe(a)
    expect(side(a, b, "new")).toBe(b)
  })

  it("as HTML strikes through and underlines, and escapes", () => {
    const shown = diffHtml(`x ${hostile}`, "x <b>new</b>").text
    expect(shown).toMatch(/<del [^>]*>/)
    expect(shown).toMatch(/<ins [^>]*>.*new.*<\/ins>/)
    expect(shown).not.toMatch(/<(script|img|!--|b>)/)
  })
})

describe("constraint edits and answers", () => {
  it("show dropped constraints struck through and changed ones with the old and the new text", () => {
    const edits: Edit[] = [
      { index: 1, kind: "constraint-dropout", before: "short?", after: null },
      { index: 2, kind: "constraint-negate", before: "polite?", after: "not polite?" },
    ]
    const lines = editsHtml({ constraints: ["about a fox?", "short?", "polite?"], edits }).text.split("<li>")
    expect(lines[1]).toBe("about a fox?</li>")
    expect(lines[2]).toMatch(/drop.*<del [^>]*>short\?<\/del><\/li>/)
    expect(lines[3]).toMatch(/negate.*<del [^>]*>polite\?<\/del> → <ins [^>]*>not polite\?<\/ins>/)
    expect(
      editsHtml({ constraints: [hostile], edits: [{ ...edits[0]!, index: 0, before: hostile }] }).text,
    ).not.toMatch(/<(script|img|!--)/)
  })

  it("count the constraints that an answer keeps, and leave unread verdicts out", () => {
    const verdicts = [true, false, null].map((satisfied, i) => ({ question: `q${i}`, satisfied }))
    const shown = answersHtml([{ name: "base", text: hostile, verdicts }]).text
    expect(shown).toContain("keeps 1 of 2")
    expect([...shown.matchAll(/[✓✗]/g)].join("")).toBe("✓✗")
    expect(shown).not.toMatch(/<(script|img|!--)/)
  })

  it("show questions without marks where nobody judged", () => {
    const shown = answersHtml([{ name: "chosen", text: "t", verdicts: [{ question: "q?" }] }]).text
    expect(shown).toContain("<li>q?</li>")
    expect(shown).not.toMatch(/[✓✗·]|keeps/)
  })
})

describe("token heat map", () => {
  const n = 3
  const numbers = (value: number) => Array<number>(n).fill(value)
  const signals: TokenSignals = {
    tokens: ["Hi", " <b>", "\n"],
    logprob: numbers(-0.5),
    logprob_noised: numbers(-2),
    logprob_empty: numbers(-4),
    entropy: numbers(0.7),
    entropy_noised: numbers(0.8),
    kl: numbers(0.31),
    kl_reverse: numbers(0.42),
  }
  const row = {
    signals: { chosen: signals, rejected: { ...signals, tokens: [hostile, "a", "b"] } },
    weights: {
      uniform: { chosen: [1, 1, 1], rejected: [1, 1, 1] },
      contrast: { chosen: [0.25, 2, 0.75], rejected: [1, 1, 1] },
    },
  } as unknown as WeighedRow

  it("shades more the more a token weighs, from nothing at 0 to .7 at 2", () => {
    const shades = Array.from({ length: 201 }, (_, i) => shade(i / 100))
    expect(shades[0]).toBe(0)
    expect(shades[200]).toBe(0.7)
    for (let i = 1; i < shades.length; i++) expect(shades[i]).toBeGreaterThanOrEqual(shades[i - 1]!)
    expect(new Set(shades).size).toBe(41)
    expect([shade(-1), shade(9)]).toEqual([0, 0.7])
  })

  it("can be read without colours: heavy tokens are underlined, the heaviest bold", () => {
    expect(tokenStyle(1, "chosen")).not.toMatch(/underline|bold|700/)
    expect(tokenStyle(1.5, "chosen")).toMatch(/underline$/)
    expect(tokenStyle(2, "chosen")).toMatch(/underline;font-weight:700$/)
  })

  it("names token, weights and every signal in nats", () => {
    const shown = pairMap(row, { weightings: ["contrast", "uniform"] }).text
    const first = /<span class="token" title="([^"]*)" data-w="([^"]*)" style="([^"]*)">/.exec(shown)!
    expect(first[1]).toBe(
      [
        "&quot;Hi&quot;",
        "weight: contrast 0.25, uniform 1.00",
        "log p: clean −0.50, noised −2.00, empty −4.00 nats",
        // contrast -.5 + 2, pmi -.5 + 4
        "contrast 1.50, pmi 3.50 nats",
        "entropy: clean 0.70, noised 0.80 nats",
        "KL(clean‖noised) 0.31, KL(noised‖clean) 0.42 nats",
      ].join("\n"),
    )
    expect(first[2]).toBe("0.25 1.00")
    // .7 * .25 / 2 = .0875
    expect(first[3]).toContain("background:rgba(0,114,178,0.0875)")
  })

  it("leaves out the signals that a server does not give", () => {
    const served = { ...signals, entropy: [], entropy_noised: [], kl: [], kl_reverse: [] }
    const shown = pairMap({ ...row, signals: { chosen: served, rejected: served } }).text
    expect(shown).toContain("contrast 1.50, pmi 3.50 nats")
    expect(shown).not.toMatch(/entropy|KL|NaN/)
  })

  it("escapes tokens, shows numbers on request, and says how many tokens it leaves out", () => {
    const shown = pairMap(row, { numbers: true, maxTokens: 2 }).text
    expect(shown).not.toMatch(/<(script|img|!--|b>(?!chosen|rejected))/)
    expect(shown).toContain(">1.0</small>")
    expect(shown).toContain("… 1 more tokens")
    expect(pairMap(row).text).not.toContain("</small>")
    expect(mapLegend().text).toContain("0.7)")
  })

  it("refuses a weighting that the row does not have, and names those that it has", () => {
    expect(() => pairMap(row, { weightings: ["kl"] })).toThrow('weightings must be among uniform, contrast, got "kl"')
  })
})
