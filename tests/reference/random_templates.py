"""Random chat templates and conversations, to be rendered by Transformers and by us.

    random_templates.py SEED COUNT OUT      then `npx tsx tests/reference/templates.ts OUT`

Names are few, so that scopes meet: a name is read, set, shadowed and set again by loops, macros and blocks.
"""
import json
import pathlib
import random
import sys
import warnings

import transformers

from templates import SPECIAL, VALUES, render

warnings.simplefilter("ignore")

NAMES = ["s", "t", "x", "y", "n", "m", "l", "d", "messages", "message", "bos_token", "loop", "ns", "f", "caller", "varargs", "kwargs"]
TEXTS = ["", "a", " b ", "user", "assistant", "\n", "\n x\n", "<think>t</think>a", "é한😀", "A-b c", "1", "{% x %}", "'\"", "\u0085\ufeff", "x\r\ny", "[{\"k\": 1}]"]
ROLES = ["system", "user", "assistant", "tool"]


class Maker:
    def __init__(self, rng):
        self.rng = rng
        self.loops = 0
        self.known = False

    def pick(self, *options):
        return self.rng.choice(options)

    def text(self):
        return "'" + self.rng.choice(TEXTS).replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r") + "'"

    def name(self):
        return self.rng.choice(NAMES)

    def expression(self, depth=2):
        if depth <= 0:
            inside = ["message.content", "message['role']", "loop.index", "loop.first", "message"] if self.loops else ["messages"]
            return self.pick(self.name(), "x", "s", "y", self.text(), str(self.rng.randrange(-2, 8)), "true", "none", "l", "messages", "1.5", *inside)
        inner = lambda: self.expression(depth - 1)  # noqa: E731
        kind = self.rng.choice([*range(22), 8, 9, 13, 18])
        if kind < 6 or self.rng.random() < 0.55:
            return self.expression(0)
        if kind == 6:
            return f"({inner()} {self.pick('~', '~', '~', '~', '+', '-', '*', '//', '%')} {inner()})"
        if kind == 7:
            return f"({inner()} {self.pick('==', '!=', '==', '!=', '<', 'in')} {inner()})"
        if kind == 8:
            return f"({inner()} {self.pick('and', 'or')} {inner()})"
        if kind == 9:
            return f"({inner()} if {inner()}{self.pick('', ' else ' + inner())})"
        if kind == 10:
            return f"[{inner()}, {inner()}]" if self.rng.random() < 0.5 else f"({inner()},)"
        if kind == 11:
            return "{'a': " + inner() + ", 'role': " + inner() + "}"
        if kind < 15:
            name = self.pick("length", "upper", "trim", "string", "string", "tojson", "default('z')", "list", "e", "string|upper", "string|length", "string|trim", "string|title", "list", "first", "last", "tojson", "string", "join('-')", "int", "float", "title", "capitalize", "reverse", "sort", "unique", "default('z')", "default(x, true)", "e", "replace('a', x)", "map('string')|list", "map('upper')|join", "select|list", "select('string')|list", "rejectattr('role', 'eq', 'user')|list", "selectattr('content')|list", "map(attribute='role')|join(',')", "batch(2)|list", "items|list", "dictsort", "min", "max", "sum", "abs", "round", "wordcount", "indent(2)", "groupby('role')|list", "tojson(indent=2)", "truncate(3)", "trim('a')", "attr('role')", "map('default', 'q')|list", "slice(2)|list", "center(7)", "format(1)", "lower", "safe", "urlencode", "xmlattr", "striptags", "wordwrap(2)", "random", "pprint", "forceescape", "filesizeformat")
            return f"{inner()}|{name}"
        if kind < 17:
            call = self.pick("upper()", "strip()", "split()", "split('\\n')", "strip('\\n')", "startswith('a')", "replace('a', 'b')", "items()", "keys()|list", "get('role')", "get('k', x)", "title()", "lstrip('\\n')", "rsplit('a', 1)", "split('</think>')[-1]", "splitlines()", "count('a')", "index('a')", "find('a')", "endswith(('a', 'b'))", "join(l)", "values()|list", "format(1)", "isdigit()", "removeprefix('a')", "zfill(3)", "partition('a')")
            return f"({inner()}|string).{call}"
        if kind == 17:
            return f"{inner()}[{self.pick('0', '-1', '1:', '::-1', ':2', inner(), 'none', ':-1')}]"
        if kind == 18:
            return f"({inner()} is {self.pick('', 'not ')}{self.pick('defined', 'none', 'string', 'mapping', 'iterable', 'odd', 'true', 'number', 'sequence', 'callable', 'undefined', 'in l', 'eq 1', 'divisibleby 2', 'integer', 'float', 'boolean', 'false', 'even', 'upper', 'sameas none')})"
        if kind in (19, 20) and not self.loops and not self.known:
            return self.pick("x is defined", "s ~ x", "messages|length", "x|default(s)", "range(3)|list", "dict(a=1)")
        if kind == 19:
            return self.pick(f"f({inner()})", "caller()", f"f({inner()}, x={inner()})", f"caller({inner()})", "f()", f"f(y={inner()})", "kwargs", "varargs|length", "f.name", "f(*l)", "f(**d)", "f(**{'x': 1})")
        if kind == 20:
            return self.pick("ns.a", "ns.b", "loop.first", "loop.last", "loop.index0", "loop.length", "loop.previtem", "loop.nextitem", "loop.revindex", "loop.cycle('a', 'b')", "loop.changed(x)", "loop.depth", "message.tool_calls", "messages[0].content", "message.missing", "messages|length", "namespace(a=x).a", "dict(a=1)", "range(3)|list", "loop(l)", "joiner(',')()", "loop.previtem.content", "loop.nextitem.role")
        return f"{self.pick('not ', '-', '+')}{inner()}"

    def target(self):
        return self.pick(self.rng.choice(["x", "y", "s", "m", "t", "ns.a", "ns.b"]), "x, y", self.name()) if self.rng.random() < 0.9 else self.name()

    def open(self):
        return "{%" + self.pick("", "", "", "-", "+") + self.pick(" ", " ", " ", "\n")

    def close(self):
        return self.pick(" ", "") + self.pick("", "", "", "-", "+") + "%}"

    def tag(self, inside):
        return self.open() + inside + self.close()

    def body(self, depth):
        return "".join(self.statement(depth) for _ in range(self.rng.randrange(1, 4)))

    def statement(self, depth):
        kind = self.rng.randrange(24)
        if depth <= 0 or kind < 7:
            kind = self.rng.randrange(7)
        if kind < 3:
            return "{{" + self.pick("", "", "-", "+") + " " + self.expression() + " " + self.pick("", "", "-") + "}}"
        if kind == 3:
            return self.pick("\n", " ", "\n  ", "text", "<|im_start|>", "{# c #}", "\r\n", "\t\n", "{#- c -#}", "a\n", "{% raw %} {{ x }} {% endraw %}", "{%- raw -%} y {%- endraw -%}")
        if kind == 4:
            return self.tag(f"set {self.target()} = {self.expression()}")
        if kind == 5:
            return self.tag(f"set {self.rng.choice(['x', 'y', 's', 'm', 't', 'bos_token'])} = {self.expression(1)}")
        if kind == 6:
            if self.loops and self.rng.random() < 0.5:
                return self.tag(self.pick("break", "continue")) if self.rng.random() < 0.3 else self.tag("if " + self.expression(1)) + self.tag(self.pick("break", "continue")) + self.tag("endif")
            return "{{ " + self.pick(*NAMES) + " }}"
        if kind < 12:
            self.loops += 1
            test = f" if {self.expression(1)}" if self.rng.random() < 0.3 else ""
            recursive = " recursive" if self.rng.random() < 0.15 else ""
            sequence = self.pick("messages", "messages", "l", "d", "range(3)", "messages[1:]", "d.items()", "l|map('string')", "messages|selectattr('content')", self.expression(1))
            target = self.pick("message", "message", "x", "m", "i", "k, v") if sequence != "d.items()" else "k, v"
            text = self.tag(f"for {target} in {sequence}{test}{recursive}") + self.body(depth - 1)
            self.loops -= 1
            if self.rng.random() < 0.3:
                text += self.tag("else") + self.body(depth - 1)
            return text + self.tag("endfor")
        if kind < 16:
            text = self.tag("if " + self.expression()) + self.body(depth - 1)
            for _ in range(self.rng.randrange(3)):
                text += self.tag("elif " + self.expression()) + self.body(depth - 1)
            if self.rng.random() < 0.5:
                text += self.tag("else") + self.body(depth - 1)
            return text + self.tag("endif")
        loops, self.loops = self.loops, self.loops if self.rng.random() < 0.02 else 0
        if kind < 18:
            parameters = self.pick("", "x", "x, y=1", "x=s, y=x", "message", "x, caller=none", "kwargs", "y=varargs")
            text = self.tag(f"macro {self.pick('f', 'f', 'x', 'g')}({parameters})") + self.body(depth - 1) + self.tag("endmacro")
        elif kind == 18:
            text = self.tag(f"call{self.pick('', '(x)', '(x, y=2)')} f({self.pick('', 'x', '1, 2', 'y=3')})") + self.body(depth - 1) + self.tag("endcall")
        elif kind == 19:
            self.loops = loops
            text = self.tag(f"set {self.pick('x', 'y', 'ns.a')}{self.pick('', ' | upper', ' | replace(s, t)')}") + self.body(depth - 1) + self.tag("endset")
        elif kind == 20:
            self.loops = loops
            bindings = self.pick("", f"x={self.expression(1)}", f"x={self.expression(1)}, y=x", f"message={self.expression(1)}")
            text = self.tag(f"with {bindings}") + self.body(depth - 1) + self.tag("endwith")
        elif kind == 21:
            self.loops = loops
            text = self.tag(f"filter {self.pick('upper', 'trim', 'replace(x, s)', 'length', 'trim|title')}") + self.body(depth - 1) + self.tag("endfilter")
        else:
            text = self.tag("generation") + self.body(depth - 1) + self.tag("endgeneration")
        self.loops = loops
        return text

    def template(self):
        start = self.pick("", "{% set ns = namespace(a=1, b=l) %}", "{%- set ns = namespace(a=messages|length, b='') -%}\n")
        self.known = start != ""
        start += self.pick("" if not self.known else "{% macro f() %}{{ caller is defined }}{{ varargs }}{% endmacro %}", "{% macro f(x, y='q') %}<{{ x }}{{ y }}>{% endmacro %}", "{% macro f() %}{{ varargs }}{{ kwargs }}{% if caller %}{{ caller(1) }}{% endif %}{% endmacro %}\n")
        return start + "".join(self.statement(3) for _ in range(self.rng.randrange(2, 7)))

    def conversation(self):
        rows = [{"role": self.rng.choice(ROLES), "content": self.rng.choice(TEXTS)} for _ in range(self.rng.randrange(0, 5))]
        if rows and self.rng.random() < 0.2:
            rows[-1]["tool_calls"] = [{"function": {"name": "g", "arguments": {"a": 1}}}]
        if rows and self.rng.random() < 0.1:
            rows[0]["content"] = self.pick(None, [{"type": "text", "text": "p"}])
        return rows


def main():
    seed, count, out = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        maker = Maker(rng)
        template = maker.template()
        base = {name: VALUES[name] for name in rng.sample(["s", "t", "n", "l", "m", "d"], 4)}
        variables = {**base, "messages": maker.conversation(), "tools": None, "documents": None, "add_generation_prompt": rng.random() < 0.5, **SPECIAL}
        if rng.random() < 0.5:
            variables["x"] = rng.choice(["given", 5, ["u", "v"], {"role": "r"}])
        rows.append({"template": template, "variables": variables, **render(template, variables)})
    out.write_text(json.dumps({"transformers": transformers.__version__, "context": {}, "rows": rows}))
    print(out, len(rows), "rows,", sum("error" in row for row in rows), "errors of the template")


if __name__ == "__main__":
    main()
