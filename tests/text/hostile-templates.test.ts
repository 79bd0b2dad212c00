import { describe, expect, it } from "vitest"
import { compileTemplate } from "../../lib/text/jinja/template"

describe("a template of a stranger", () => {
  const list = "[1,2,3,4,5,6,7,8,9,10]"
  const nested = (depth: number, inner: string): string =>
    depth ? `{% for i${depth} in ${list} %}${nested(depth - 1, inner)}{% endfor %}` : inner
  it.each([
    ["nested loops over lists", nested(8, "")],
    ["nested loops over range", "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"],
    ["doubling texts", `{% set ns = namespace(s='x') %}${nested(2, "{% set ns.s = ns.s + ns.s %}")}`],
    ["doubling lists", `{% set ns = namespace(s=[1]) %}${nested(2, "{% set ns.s = ns.s + ns.s %}")}`],
    [
      "doubling captures",
      `{% set ns = namespace(s='x') %}${nested(2, "{% set q %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = q %}")}`,
    ],
    ["a macro that calls itself", "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}"],
    ["a tree of macros", "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"],
    ["a recursive loop", "{% for i in [1] recursive %}{{ loop([1, 2]) }}{% endfor %}"],
    ["chains of replace", `{{ 'a'${"|replace('a', 'aaaaaaaaaa')".repeat(30)} }}`],
    ["a long repetition", "{{ 'x' * 99999999999 }}"],
    ["a long list", "{{ [0] * 99999999999 }}"],
    ["a power", "{{ 9 ** 9 ** 9 ** 9 }}"],
    ["growing products", `{% set ns = namespace(n=3) %}${nested(3, "{% set ns.n = ns.n * ns.n %}")}`],
    ["wide padding", "{{ 'a'.center(99999999999) }}"],
    ["wide indents", `{{ ${list}|tojson(indent=99999999999) }}`],
    ["joins of joins", `{% set ns = namespace(s='ab') %}${nested(2, "{% set ns.s = ns.s.join(ns.s) %}")}`],
    [
      "a list in itself, printed",
      `{% set ns = namespace(l=[1]) %}${nested(3, "{% set ns.l = [ns.l, ns.l] %}")}{{ ns.l }}`,
    ],
    ["deep brackets", `{{ ${"(".repeat(50_000)}1${")".repeat(50_000)} }}`],
    ["deep blocks", `${"{% if true %}".repeat(20_000)}${"{% endif %}".repeat(20_000)}`],
    ["many signs", `{{ ${"-".repeat(100_000)}1 }}`],
    ["a long sum", `{{ ${"1+".repeat(100_000)}1 }}`],
    ["quadratic search", `{% set s = 'a' * 200000 %}${nested(4, "{{ s.count('aaaaaaaab') }}")}`],
    ["slices without end", `{% set s = 'a' * 1000000 %}${nested(3, "{% set t = s[::-1] %}")}`],
    ["unique over many", "{{ range(90000)|unique|list|length }}"],
    ["sorting again and again", `{% set l = range(90000)|list %}${nested(3, "{% set m = l|sort %}")}`],
    ["comparing long lists", `{% set l = range(90000)|list %}${nested(4, "{% if l == l[:] %}{% endif %}")}`],
    ["looking in long lists", `{% set l = range(90000)|list %}${nested(4, "{% if -1 in l %}{% endif %}")}`],
    [
      "dicts made again and again",
      `{% set d = dict(a=range(90000)|list) %}${nested(4, "{% set e = dict(d) %}{{ d.a|length }}")}`,
    ],
    ["ordering long texts", `{% set s = 'a' * 900000 %}{% set t = s ~ 'b' %}${nested(5, "{% if s < t %}{% endif %}")}`],
    ["many blanks before a tag", `${" \n".repeat(100_000)}x{%- if true %}x{% endif %}`],
    ["a long number", `{{ ${"9".repeat(200_000)} }}`],
    ["a long text read as a number", "{{ ('9' * 1000000)|int }}{{ ('9' * 1000000 ~ 'x')|float }}"],
    ["growing sums", `{% set ns = namespace(n=3) %}${nested(6, "{% set ns.n = ns.n + ns.n %}")}`],
    ["many sigmas", "{{ ('aΣ' * 200000).title()|length }}{{ ('aΣ' * 200000).swapcase()|length }}"],
    [
      "names in many branches",
      Array.from({ length: 6000 }, (_, i) => `{% if n %}{% set v${i} = 1 %}{% endif %}`).join(""),
    ],
    ["a long body within many loops", nested(150, "{{ a }}{{ b }}".repeat(15_000))],
    ["the length of a filtered loop", "{% for i in range(99999) if true %}{{ loop.length }}{% endfor %}"],
    [
      "many names in many rounds",
      `{% for i in range(90000) %}${Array.from({ length: 3000 }, (_, i) => `{% set v${i} = 1 %}`).join("")}{% endfor %}`,
    ],
    ["steps that are dear", `{% set l = range(90000)|list %}${nested(4, "{% set m = l|map('string')|list %}")}`],
  ])("ends within seconds with a reason: %s", (_, source) => {
    const start = process.cpuUsage()
    let said = "rendered"
    try {
      compileTemplate(source)({ messages: [] })
    } catch (error) {
      said = (error as Error).message
    }
    const { user, system } = process.cpuUsage(start)
    expect((user + system) / 1000).toBeLessThan(6000)
    expect(said).not.toBe("")
  })

  it.each([
    ["links of a chain", `{{ ${"true and ".repeat(50_000)}true }}`],
    ["filters", `{{ 'a'${"|upper".repeat(50_000)} }}`],
  ])("that is too long in %s is refused in words of our own", (_, source) => {
    expect(() => compileTemplate(source)({})).toThrow("its expressions are chained or nested too deeply")
  })
})
