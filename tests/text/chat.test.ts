import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import type { Message } from "../../lib/data/schema"
import { chatStop, encodeChat, encodeChats, encodePrompt, renderChat, withThinking } from "../../lib/text/chat"
import { readChatTemplate } from "../../lib/text/chat-template"
import { loadTokenizer, type Tokenizer } from "../../lib/text/tokenizer"

const fixtures = join(__dirname, "../fixtures")
const dir = mkdtempSync(join(tmpdir(), "chat-"))
afterAll(() => rmSync(dir, { recursive: true }))

const llama = loadTokenizer(join(fixtures, "models/llama"))
const base = loadTokenizer(join(fixtures, "models/gemma3"))
const user = (content: string): Message => ({ role: "user", content })
const assistant = (content: string): Message => ({ role: "assistant", content })
/** The llama tokenizer with another template. */
const using = (chat_template: unknown): Tokenizer => ({
  ...llama,
  chatTemplate: readChatTemplate(dir, { chat_template }),
})

describe("chat templates", () => {
  interface Row {
    template: string
    messages: Message[]
    add_generation_prompt: boolean
    text: string
  }
  const { templates, rows }: { templates: Record<string, string>; rows: Row[] } = JSON.parse(
    readFileSync(join(fixtures, "chat/expected.json"), "utf8"),
  )

  it.each(rows)(
    "give the text of transformers: $template, prompt $add_generation_prompt, $messages.length messages",
    (row) => {
      const text = renderChat(using(templates[row.template]), row.messages, {
        addGenerationPrompt: row.add_generation_prompt,
      })
      expect(text).toBe(row.text)
    },
  )

  it.each(Object.keys(templates))("%s part a prompt from its answer exactly", (name) => {
    const tokenizer = using(templates[name])
    const { promptIds, responseIds } = encodeChat(tokenizer, [user("the rain")], "is here")
    expect(tokenizer.decode(promptIds)).toBe(renderChat(tokenizer, [user("the rain")]))
    // This tokenizer lacks the end-of-turn token of chatml, so the answer gets an end of text instead.
    const text = tokenizer.decode([...promptIds, ...responseIds])
    const whole = renderChat(tokenizer, [user("the rain"), assistant("is here")], { addGenerationPrompt: false })
    expect(whole.startsWith(name === "chatml" ? text.replace(/<\/s>$/, "") : text)).toBe(true)
    expect(text).toContain("is here")
    const [one, other] = ["is here", "has gone"].map((answer) => encodeChat(tokenizer, [user("the rain")], answer))
    const both = encodeChats(tokenizer, [user("the rain")], ["is here", "has gone"])
    expect(both).toEqual({ promptIds, responses: [one!.responseIds, other!.responseIds] })
  })

  it("are taken from chat_template.jinja first, then from the settings, where a list has a default", () => {
    expect(llama.chatTemplate?.file).toMatch(/chat_template.jinja$/)
    const listed = [
      { name: "tools", template: "T" },
      { name: "default", template: "D" },
    ]
    expect(renderChat(using(listed), [user("x")])).toBe("D")
  })

  it("may lie in a folder of several, of which the default counts", () => {
    const folder = join(dir, "templates")
    cpSync(join(fixtures, "models/llama"), folder, { recursive: true })
    mkdirSync(join(folder, "additional_chat_templates"))
    const write = (name: string, text: string) => writeFileSync(join(folder, name), text)
    write("additional_chat_templates/tool_use.jinja", "T")
    expect(loadTokenizer(folder).chatTemplate?.file).toBe(join(folder, "chat_template.jinja"))
    rmSync(join(folder, "chat_template.jinja"))
    write("tokenizer_config.json", JSON.stringify({ chat_template: "S" }))
    expect(() => loadTokenizer(folder)).toThrow(
      "additional_chat_templates: several templates must have a default, got tool_use.jinja; write the one to use",
    )
    write("additional_chat_templates/default.jinja", "D")
    expect(renderChat(loadTokenizer(folder), [user("x")])).toBe("D")
  })

  it("see the special tokens that Transformers has, of either file", () => {
    const folder = join(dir, "special")
    cpSync(join(fixtures, "models/llama"), folder, { recursive: true })
    const write = (name: string, value: object) => writeFileSync(join(folder, name), JSON.stringify(value))
    const seen = (settings: object) => {
      write("tokenizer_config.json", settings)
      return loadTokenizer(folder).specialTexts
    }
    write("special_tokens_map.json", { bos_token: { content: "<s>" }, eos_token: "</s>", pad_token: null })
    // Files without added_tokens_decoder are older than the rule that tokenizer_config.json holds everything.
    expect(seen({ bos_token: null, eos_token: "<|end|>", pad_token: "<pad>" })).toEqual({
      ...{ bos_token: "<s>", eos_token: "</s>" },
    })
    const extra = { extra_special_tokens: { image_token: "<img>" }, model_specific_special_tokens: { boi: "<boi>" } }
    expect(seen({ added_tokens_decoder: {}, bos_token: null, eos_token: "<|end|>", ...extra })).toEqual({
      ...{ eos_token: "<|end|>", image_token: "<img>", boi: "<boi>" },
    })
  })

  it("see a day that never changes", () => {
    expect(renderChat(using("{{ strftime_now('%d %b %Y') }}"), [])).toBe("26 Jul 2024")
  })

  it("may refuse, and the refusal names the file", () => {
    const tokenizer = using("{{ raise_exception('no system message, please') }}")
    expect(() => renderChat(tokenizer, [user("x")])).toThrow(
      /tokenizer_config.json, chat_template: .*no system message, please/,
    )
  })

  it.each([
    ["that is not Jinja", "{% for %}", /must be Jinja/],
    ["beyond a size that anybody writes", "x".repeat(300_000), /at most 262144 characters, got 300000/],
    ["of another type", { a: 1 }, /must be a text or a list/],
  ])("%s are refused", (_, template, message) => {
    expect(() => using(template)).toThrow(message)
  })

  it("without a default in their list are refused, with the names that there are", () => {
    const listed = [
      { name: "tool_use", template: "T" },
      { name: "rag", template: "R" },
    ]
    expect(() => using(listed)).toThrow(/chat_template: a list of templates must name a default, got tool_use, rag;/)
  })

  it("see no tools and no documents, as in transformers", () => {
    const text = renderChat(using("{{ tools is none }}{{ documents is none }}{{ tools }}"), [])
    expect(text).toBe("TrueTrueNone")
  })
})

describe("a prompt with its answer", () => {
  it("ends with the end-of-turn token and leaves out what the template writes after it", () => {
    // "…assistant:\n" | "the rain<|end|>" and a line break, which generation never makes.
    const { promptIds, responseIds } = encodeChat(llama, [user("one")], "the rain")
    expect(promptIds).toEqual(encodePrompt(llama, [user("one")]))
    expect(responseIds).toEqual([...llama.encode("the rain"), 259])
    expect(promptIds.filter((id) => id === llama.bosId)).toHaveLength(1)
  })

  it("gets an end of text where the template writes none", () => {
    const { responseIds } = encodeChat(
      using("{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}[{% endif %}"),
      [user("a")],
      "b",
    )
    expect(responseIds).toEqual([...llama.encode("b]"), 257])
  })

  it("is tokenised apart where a token would span the boundary", () => {
    // " the" is one token here; the prompt ends in the blank, so the answer begins with "the".
    const tokenizer = using("{% for m in messages %}{{ m.content }}{% if m.role == 'user' %} {% endif %}{% endfor %}")
    const { promptIds, responseIds } = encodeChat(tokenizer, [user("in")], "the end")
    expect(tokenizer.encode(" the")).toHaveLength(1)
    expect(promptIds).toEqual(tokenizer.encode("in "))
    expect(responseIds).toEqual([...tokenizer.encode("the end"), 257])
  })

  it("is refused where the template opens the turn in another way than it prompts", () => {
    const tokenizer = using(
      "{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}<draft>{% endif %}",
    )
    expect(() => encodeChat(tokenizer, [user("a")], "b")).toThrow(
      /chat_template: a conversation must begin with its prompt, got "<a><b>" where the prompt has "<a><draft>"/,
    )
  })

  it("stands behind the prompt without its opening of thoughts, where the template writes answers without any", () => {
    const tokenizer = using(
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]<think>\n{% endif %}",
    )
    const { promptIds, responseIds } = encodeChat(tokenizer, [user("one")], "the rain")
    expect(tokenizer.decode(promptIds)).toBe("[user]one[assistant]")
    expect(responseIds).toEqual([...tokenizer.encode("the rain"), 257])
    expect(renderChat(tokenizer, [user("one")])).toMatch(/<think>\n$/)
  })
})

describe("thinking", () => {
  const switched =
    "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}<a>" +
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{% endif %}"

  it("is switched by the variable that templates have for it, and left to them by default", () => {
    const texts = [undefined, true, false].map((thinking) =>
      renderChat(withThinking(using(switched), thinking), [user("x")]),
    )
    expect(texts).toEqual(["[x]<a>", "[x]<a>", "[x]<a><think></think>"])
  })

  it("cannot be set where it would have no effect", () => {
    expect(() => withThinking(using("{{ messages }}"), false)).toThrow(
      /templates with enable_thinking, got one without/,
    )
    expect(() => withThinking(base, true)).toThrow(/got one without; leave it out/)
  })
})

describe("a base model without a template", () => {
  const messages = [{ role: "system" as const, content: "Be brief." }, user("one"), assistant("two"), user("three")]

  it("gets a plain dialogue that begins with one beginning-of-text token", () => {
    expect(renderChat(base, messages)).toBe(
      "<s>Be brief.\n\nUser: one\n\nAssistant: two</s>\n\nUser: three\n\nAssistant:",
    )
    expect(encodePrompt(base, messages).filter((id) => id === 256)).toHaveLength(1)
    expect(chatStop(base)).toEqual({ ids: [257, 259], texts: ["\nUser:", "\nAssistant:"] })
  })

  it("answers with a blank in front, unless the answer brings its own", () => {
    for (const answer of ["the end", " the end"]) {
      const { promptIds, responseIds } = encodeChat(base, [user("one")], answer)
      expect(promptIds).toEqual(encodePrompt(base, [user("one")]))
      expect(responseIds).toEqual([...base.encode(" the end"), 257])
    }
  })
})

it("a turn is ended by the token that the template closes it with, and by every end of text", () => {
  expect(chatStop(llama)).toEqual({ ids: [259, 257], texts: [] })
  expect(chatStop({ ...using(null), eosIds: [] }).ids).toEqual([])
})

describe("a turn of a template", () => {
  const closedBy = (token: string, special: boolean, text = token) => {
    const folder = mkdtempSync(join(dir, "closed-"))
    const json = JSON.parse(readFileSync(join(fixtures, "models/llama/tokenizer.json"), "utf8"))
    const own = { ...json.added_tokens[0], id: 300, content: token, special }
    writeFileSync(
      join(folder, "tokenizer.json"),
      JSON.stringify({ ...json, added_tokens: [...json.added_tokens, own] }),
    )
    const turn = `[{{ m.role }}]{{ m.content }}${text}\n`
    const template = `{% for m in messages %}${turn}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`
    writeFileSync(join(folder, "chat_template.jinja"), template)
    return loadTokenizer(folder)
  }

  it("ends with the token that closes it, which need not be marked special", () => {
    for (const special of [true, false]) {
      const tokenizer = closedBy("<|im_end|>", special)
      expect(chatStop(tokenizer)).toEqual({ ids: [300], texts: [] })
      expect(encodeChat(tokenizer, [user("one")], "the rain").responseIds).toEqual([...llama.encode("the rain"), 300])
    }
  })

  it("does not end with an added token of blanks, which answers may hold", () => {
    expect(chatStop(closedBy("\n\n", false, "")).ids).toEqual([])
  })

  it("ends with words where they are no token", () => {
    expect(chatStop(closedBy("<|other|>", true, "<|im_end|>"))).toEqual({ ids: [], texts: ["<|im_end|>"] })
  })
})
