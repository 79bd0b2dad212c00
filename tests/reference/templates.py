"""Chat templates as Transformers renders them: expressions, whole templates and conversations, all self-made.

    templates.py             writes tests/fixtures/chat/templates.json, which `templates.ts` and a test compare with ours
    templates.py DIR OUT     renders every *.jinja of DIR as well, for templates that are not ours to keep
"""
import datetime
import itertools
import json
import pathlib
import sys

from common import FIXTURES

import transformers
from transformers.utils import chat_template_utils

DAY = datetime.datetime(2024, 7, 26)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return DAY


chat_template_utils.datetime = Clock

TEXTS = ["a", "", " b ", "\n    if x:\n        y", "\ufeffx\u0085y\u00a0", "😀é한", "it's \"q\" \\ \t\x00\x1b", "A-b c_d", "ǆß",
         "x\r\ny\x0bz\x1c", "<b>&'", "ΑΣ", "1_0", " 12 ", "½², ٣", "Ünïcode ÄÖ", "<think>t</think>a"]
VALUES = {
    "s": "Hello World", "t": "  pad\n", "u": "😀é한", "n": 7, "z": 0, "f": 1.5, "big": 10**15, "tiny": 1e-7,
    "yes": True, "no": False, "nil": None, "l": [3, 1, 2], "m": ["b", "A", "c"], "e": [], "mixed": [1, "a", None, True, 2.5],
    "d": {"k": 1, "items": "own", "ü": [None, {"q": "'"}]}, "deep": {"a": {"b": [{"c": 5}]}},
    "rows": [{"n": "x", "v": 2, "on": True}, {"n": "Y", "v": 1, "on": False}, {"n": "a", "v": 3}],
    "words": "the quick  brown\tfox\njumps", "nested": [[1, [2, "x"]], {"a": [1, 2]}], "tools": None, "texts": TEXTS,
}

EXPRESSIONS = r"""
s|n ; t ; u ; yes ; no ; nil ; f ; big ; tiny ; 1e22 ; 1e300 ; l ; m ; e ; mixed ; d ; deep ; nested ; missing ; rows
n / 2 ; n // 2 ; -n // 2 ; n % 3 ; -7 % 3 ; 7 % -3 ; -7.5 % 2 ; 7.5 // 2 ; 2 ** 10 ; 2 ** -1 ; -2 ** 2 ; 2 ** 3 ** 2 ; 1 / 3 ; 10 / 5
n + 1.0 ; 1e3 ; 1_000 ; 0x1f ; 0b101 ; 0o17 ; 3.0 ; 1.0e10 ; 1e16 ; 1e15 ; 123456789.123 ; 0.1 + 0.2 ; 1e-5 ; 0.0001 ; -0.0
true + 1 ; yes * 3 ; 'a' * 3 ; [1] * 2 ; 3 * 'ab' ; 'a' * -1 ; [1] + [2] ; (1, 2) + (3,) ; 'a' + 1 ; 1 + 'a' ; nil + 1 ; n - 'x'
s ~ n ~ nil ~ yes ~ l ~ f ; 1 ~ 2 + 3 ; 'a' ~ missing ~ 'b' ; 1.0 ~ '' ; (1,) ~ '' ; () ~ '' ; {} ~ []
1 < 2 < 3 ; 1 < 3 < 2 ; 1 == 1.0 ; 1 == true ; 'a' < 'b' ; [1] < [1, 2] ; 1 < 'a' ; nil == none ; nil is none ; nil < 1 ; [1, 'a'] == [1, 'a']
'a' in s ; 'H' in s ; 3 in l ; 'k' in d ; 'x' not in m ; 1 in s ; 'a' in nil ; 'a' in missing ; none in mixed ; not s ; not e ; not not n
s and n ; e or 'x' ; nil or no or 0 ; n and 0 and 'q' ; s if yes else n ; s if no ; (s if no) is defined ; 1 if 2 if 0 else 3 else 4
s.upper() ; s.lower() ; s.title() ; s.capitalize() ; s.swapcase() ; u.upper() ; 'ß'.upper() ; 'ΑΣ'.lower() ; 'ǆ'.title() ; "they're bill's".title()
t.strip() ; t.lstrip() ; t.rstrip() ; 'xxaxx'.strip('x') ; '\n\na\n'.strip('\n') ; '\n  a'.lstrip('\n') ; 'abc'.rstrip('cb') ; '\ufeffa\u0085'.strip() ; '\x1ca\x1f'.strip() ; 'a'.strip(none) ; 'a'.strip(1)
words.split() ; words.split(' ') ; words.split(none, 2) ; words.split(' ', 1) ; 'a,b,,c'.split(',') ; 'a,b,c'.rsplit(',', 1) ; '  a b '.split(maxsplit=1) ; 'a b c'.rsplit(none, 1) ; ''.split() ; ''.split(',') ; 'a'.split('') ; 'aXbX'.split('X')[-1]
'a\nb\r\nc\x0bd\x85e\u2028f'.splitlines() ; 'a\n'.splitlines(true) ; ''.splitlines() ; 'a\n\n'.splitlines()
s.startswith('He') ; s.startswith(('x', 'He')) ; s.endswith('ld') ; s.startswith('World', 6) ; s.startswith('') ; s.startswith('x', 99) ; s.startswith(1) ; s.startswith(['He'])
s.find('o') ; s.rfind('o') ; s.find('zz') ; s.index('W') ; s.index('zz') ; u.find('한') ; s.find('o', 5) ; s.find('o', -3, -1) ; s.count('l') ; s.count('') ; 'aaa'.count('aa')
s.replace('l', 'L') ; s.replace('l', 'L', 1) ; 'abc'.replace('', '-') ; 'abc'.replace('', '-', 2) ; s.replace('zz', 'y') ; 'a'.replace(1, 2) ; 'aaa'.replace('a', 'b', -1) ; '😀a'.replace('', '|')
', '.join(m) ; ''.join(l) ; '-'.join('abc') ; ','.join(e) ; s.removeprefix('He') ; s.removesuffix('ld') ; s.removesuffix('') ; 'a=b=c'.partition('=') ; 'a=b=c'.rpartition('=') ; 'abc'.partition('x')
'7'.zfill(3) ; '-7'.zfill(4) ; 'a'.ljust(3, '*') ; 'a'.rjust(3) ; 'ab'.center(5, '*') ; 'abc'.center(6) ; 'a'.center(4) ; '😀'.ljust(3, '-')
'a1'.isalnum() ; 'ab'.isalpha() ; '12'.isdigit() ; ''.isdigit() ; ' '.isspace() ; '\ufeff'.isspace() ; 'AB'.isupper() ; 'ab1'.islower() ; '١'.isdecimal() ; 'é'.isalpha() ; 'a_b'.isalnum() ; 'é'.isascii()
s[0] ; s[-1] ; s[99] ; s[1:4] ; s[::-1] ; s[-3:] ; s[:-3] ; s[::2] ; u[0] ; u[1:] ; u[::-1] ; l[0] ; l[-1] ; l[5] ; l[1:] ; l[::-1] ; l[-2:] ; l[:99] ; l[5:] ; l[2:0:-1] ; l['a'] ; s['upper']() ; l[1.0] ; l[true] ; s[:none] ; nil[0] ; n[0] ; missing[0] ; missing.x ; nil.x ; d.missing ; d.missing.x ; l[0:2:0] ; (1, 2, 3)[1:] ; range(5)[1:3] ; s['a':]
d.k ; d['k'] ; d.items is callable ; d['items'] ; d.items() ; d.keys() ; d.values() ; d.items()|list ; d.keys()|list ; d.get('k') ; d.get('x') ; d.get('x', 5) ; d.get('x', default=5) ; d['ü'] ; d.ü ; deep.a.b[0].c ; deep.a.b.0.c ; deep['a']['b'] ; d.copy() ; d.update({'a': 1}) ; l.append(4) ; l.pop() ; m.sort() ; l.index(1) ; l.count(3) ; l.index(9) ; s.__class__ ; d.__len__ ; l.__x ; d._x
{'a': 1, 'b': [1, 2.5, none, true]} ; {1: 'a', none: 2} ; {'a': 1, 'a': 2} ; {'x': {}}|length ; {[1]: 2} ; {'a': missing} ; [missing] ; ['a\'b', "a\"b", 'a\'"b', '\n\t\\', '\x00\x7f\u200b\ue000😀é'] ; ('a',) ; ((1, 2), [3])
s|length ; u|length ; l|length ; d|length ; n|length ; nil|length ; missing|length ; s|count ; '👨‍👩‍👧'|length ; 'e\u0301'|length
s|upper ; s|lower ; s|title ; "it's a-b (cd) é"|title ; s|capitalize ; t|trim ; 'xax'|trim('x') ; '\ufeffa\u0085'|trim ; n|upper ; nil|upper ; missing|upper ; l|upper ; yes|lower
l|first ; l|last ; e|first ; s|first ; s|last ; d|first ; d|last ; n|first ; u|last ; l|min ; l|max ; m|min ; m|max ; e|max ; rows|max(attribute='v') ; l|sum ; rows|sum(attribute='v') ; l|sum(start=10) ; m|sum ; [1.5, 2]|sum ; mixed|max
l|sort ; l|sort(reverse=true) ; m|sort ; m|sort(case_sensitive=true) ; rows|sort(attribute='n')|map(attribute='n')|list ; rows|sort(attribute='v,n')|map(attribute='v')|join(',') ; mixed|sort ; l|reverse|list ; s|reverse ; l|reverse|join ; d|dictsort ; {'b': 1, 'A': 2}|dictsort ; {'b': 1, 'a': 2}|dictsort(by='value') ; {'b': 1, 'A': 2}|dictsort(true) ; {'b': 1}|dictsort(false, 'x') ; e|reverse|list ; nil|reverse
[1, 1, 2]|unique|list ; ['a', 'A']|unique|list ; ['a', 'A']|unique(true)|list ; l|join ; l|join(', ') ; m|join('-') ; rows|join(',', attribute='n') ; mixed|join(' ') ; missing|join ; nil|join ; s|join('.') ; l|list ; s|list ; d|list ; missing|list ; nil|list ; range(3)|list
l|map('string')|list ; m|map('upper')|join(',') ; rows|map(attribute='n')|list ; rows|map(attribute='z')|list ; rows|map(attribute='z', default='?')|list ; rows|map(attribute='on', default=5)|list ; m|map('replace', 'b', 'x')|list ; l|map('nope')|list ; [[1, 2]]|map('first')|list ; [[1, 2]]|map(attribute=1)|list ; [{'a': {'b': 3}}]|map(attribute='a.b')|list ; m|map('length')|sum
l|select('odd')|list ; l|reject('odd')|list ; mixed|select|list ; mixed|reject|list ; l|select('greaterthan', 1)|list ; rows|selectattr('on')|map(attribute='n')|list ; rows|rejectattr('on')|map(attribute='n')|list ; rows|selectattr('v', 'equalto', 1)|list ; rows|selectattr('n', 'in', ['x', 'a'])|list|length ; rows|selectattr('on', 'defined')|list|length ; rows|selectattr('v', '>=', 2)|map(attribute='n')|join ; l|select('nope')|list ; e|select|list ; rows|selectattr|list ; rows|selectattr('q', 'defined')|first is defined
l|tojson ; d|tojson ; s|tojson ; u|tojson ; u|tojson(ensure_ascii=true) ; d|tojson(indent=2) ; d|tojson(indent=4, sort_keys=true) ; e|tojson(indent=2) ; {}|tojson(indent=2) ; {'a': []}|tojson(indent=2) ; mixed|tojson ; nil|tojson ; yes|tojson ; f|tojson ; 1e22|tojson ; 2.0|tojson ; [2.0, 1e16] ; tiny|tojson ; missing|tojson ; d|tojson(separators=(',', ':')) ; d|tojson(indent='\t') ; '</script>\x7f\x00\u2028'|tojson ; '\x7f'|tojson(ensure_ascii=true) ; (1, 2)|tojson ; {1: 2, none: 3}|tojson ; range(2)|tojson ; d|tojson(true) ; d|tojson(nope=1) ; d|tojson(indent=0) ; '"\\/\n\r\t\b\f'|tojson ; {'b': 1, 'a': 2}|tojson(sort_keys=true) ; l|tojson(indent=none)
'12'|int ; '12.7'|int ; 'x'|int ; 'x'|int(5) ; ' 12 '|int ; '1_0'|int ; 3.9|int ; -3.9|int ; nil|int ; yes|int ; missing|int ; ''|int ; '1e3'|int ; '-5'|int ; '+5'|int ; '12abc'|int ; '12.7'|float ; 'x'|float ; 'x'|float(2.5) ; 3|float ; 'inf'|float ; 'nan'|float ; '1e5'|float ; '.5'|float ; '5.'|float ; '0x1f'|int ; '99999999999999999999'|int
3.5|round ; 2.5|round ; 0.5|round ; -2.5|round ; 1.234|round(2) ; 2.675|round(2) ; 0.125|round(2) ; 1.5|round(0, 'ceil') ; 1.5|round(0, 'floor') ; 42.55|round(1, 'floor') ; 5|round ; 1234.5678|round(1) ; 1e20|round ; (1/3)|round(3) ; 's'|round ; 1.5|round(method='nope')
-5|abs ; (-5)|abs ; -1.5|abs ; yes|abs ; 'a'|abs ; s|default('x') ; missing|default('x') ; missing|d('x') ; ''|default('x') ; ''|default('x', true) ; nil|default('x') ; nil|default('x', boolean=true) ; missing|default ; missing|default(nil) ; missing.x|default('y') ; missing|default(default_value=3)
s|replace('l', 'L') ; s|replace('l', 'L', 1) ; n|replace('7', 'x') ; 'a1'|replace(1, 2) ; s|replace('l') ; t|indent ; 'a\nb\n\nc'|indent ; 'a\nb'|indent(2) ; 'a\nb'|indent(2, true) ; 'a\n\nb'|indent(2, blank=true) ; 'a\nb'|indent('> ') ; ''|indent ; 'a\n'|indent ; 'a\n'|indent(2, true, true) ; n|indent ; 'a\r\nb'|indent(1)
'foo bar baz qux'|truncate(9) ; 'foo bar baz qux'|truncate(9, true) ; 'foo bar baz qux'|truncate(11) ; 'foo bar baz qux'|truncate(11, false, '...', 0) ; 'foobarbazqux'|truncate(5) ; 'a'|truncate(2) ; u|truncate(3, true, '', 0) ; 'foo bar'|center(11) ; s|center ; words|wordcount ; "it's é_1"|wordcount
[1, 2, 3, 4, 5]|batch(2)|list ; [1, 2, 3]|batch(2, 'x')|list ; [1, 2, 3, 4, 5]|slice(2)|list ; [1, 2, 3]|slice(2, 'x')|list ; e|batch(2)|list ; 'a/b c?é&='|urlencode ; '<a>&"'|escape ; '<a>'|e|length ; '<a>'|safe ; ('<'|safe) ~ '<' ; d|items|list ; missing|items|list ; l|items|list ; '%s and %s'|format('a', 1) ; '%d%%'|format(5) ; '%.2f'|format(1.005) ; '%s' % l ; '%s %s' % ('a', none) ; '%d' % 3.9 ; '%s' % ('a', 'b') ; '%s %s' % 'a' ; 'x' % 1 ; '%5d'|format(3) ; s|attr('upper') is defined ; d|attr('k') is defined ; s|nope ; s|pprint ; s|string ; nil|string ; l|string|length
s is string ; n is number ; n is integer ; f is float ; f is number ; yes is number ; yes is integer ; yes is boolean ; n is boolean ; nil is none ; l is iterable ; s is iterable ; n is iterable ; l is sequence ; d is sequence ; d is mapping ; l is mapping ; s is sequence ; missing is sequence ; missing is iterable ; n is sequence ; d.items() is sequence ; range(2) is sequence
missing is defined ; s is defined ; missing is undefined ; missing is none ; nil is defined ; d.k is defined ; d.x is defined ; 3 is odd ; 4 is even ; n is divisibleby 7 ; n is divisibleby(2) ; 'a' is in 'abc' ; 1 is in l ; n is eq 7 ; n is equalto(7) ; n is ne 7 ; n is gt 5 ; n is lt(5) ; n is ge 7 ; n is sameas 7 ; nil is sameas none ; yes is sameas true ; yes is true ; no is false ; n is true ; 's' is lower ; 'S1' is upper ; '1' is upper ; s is callable ; s.upper is callable ; range is callable ; missing is callable ; s is not string ; s is not defined ; s is nope ; not s is string ; 'upper' is filter ; 'nope' is filter ; 'odd' is test ; (s is string) and (n is number) ; s is string and n is string or yes
range(3) ; range(1, 4)|list ; range(5, 0, -2)|list ; range(3)|length ; range(0)|list ; range(1, 10, 3)|join ; range('a') ; range(3.0) ; range(100001)|length ; range(100000)|length ; range(3) == range(3) ; range(1, 2, 0) ; range(10)[-1] ; 2 in range(3) ; dict(a=1, b='x') ; dict([('a', 1)]) ; dict(d, z=1) ; dict()|length ; namespace(a=1).a ; namespace(a=1).b is defined ; namespace(_a=1).x ; namespace(a=1) ; cycler('a', 'b').next() ; joiner(',')() ; lipsum()|length > 0
strftime_now('%Y-%m-%d') ; strftime_now('%d %b %Y') ; strftime_now('%B %d, %Y') ; strftime_now('%A %a %w %j %U %W %V %G %u') ; strftime_now('%H:%M:%S.%f %p %I') ; strftime_now('%y %e %-d %-m %-H %-I %D %F %T %R %r %h %C %g') ; strftime_now('%c|%x|%X|%%|%n|%t|%z|%Z') ; strftime_now('%^a %^B %_d %_m %-j') ; strftime_now('') ; strftime_now('plain é') ; strftime_now('%k %l %P') ; strftime_now(1)
raise_exception('no') ; raise_exception() ; s() ; missing() ; n.x ; n.x.y ; s.nope() ; foo.bar ; 1 / 0 ; 1 // 0 ; 1 % 0 ; 1 2 ; 'a' 'b' ; 'a' 'b'|upper ; -s ; +n ; - -3 ; -'a' ; not ; [1, 2, ] ; {'a': 1, } ; (1) ; (1, ) ; () ; [] ; 1, 2 ; s|upper|lower ; s.upper().lower()[0] ; (s ~ t)|upper|trim ; -1|abs ; 2 - -1 ; 1 -1 ; 1-1 ; n-1 ; a-b
'\x41\u00e9\U0001f600\101\q\'\"' ; "tab\there" ; 'é\\n' ; '\é' ; 'a\
b' ;  '\xZ' ; "{{ }}" ; "{% raw %}" ; 'a' == "a" ; 'İ'.lower() ; 'ŉ'.upper() ; 'ﬁx'.capitalize() ; 'ß'.capitalize() ; 'ß'|title ; 'aǆ ǆa'.title() ; '1a a1'.title() ; 'ab'.upper is callable
s.casefold() ; s.encode() ; 'a\tb'.expandtabs() ; '{}'.format(1) ; n.bit_length() ; f.is_integer() ; d.pop('k') ; s.translate({}) ; l|groupby('x') ; s|wordwrap(3) ; '²'.isdigit() ; '½'.isalnum() ; {1.0: 1} ; {true: 1} ; 's' is sameas 's'
n[1:] ; nil[:2] ; d[::-1] ; d.items()[1:] ; missing[1:] ; range(3).step ; range(9, 1, -2).start ; namespace(a=1)['a'] ; namespace(a=1)['b'] ; namespace(a=1)|attr('a') ; ('<b>'|safe)[0] ; ('<b>'|safe)[1:] ; rows|unique|list ; [[1]]|unique|list ; [(1, 2), (1, 2)]|unique|list
l.count() ; m.count('b') ; 'ab'.partition('') ; 'ab'.rpartition('') ; m|sum(start='') ; missing|reverse|list ; 123456789012345678901234567890|round(2, 'floor') ; 7|round(1, 'ceil') ; 5.0 % -2.5 ; -5.0 % 2.5 ; big % -2.5
loop is defined ; self is defined ; varargs is defined ; caller is defined ; messages|length ; messages[0].role ; messages[-1]['content'] ; messages[0].content.split('x') ; add_generation_prompt ; bos_token ; tools is none ; documents is none ; tools ; tools is not none ; tools|length ; not tools ; (tools or [])|length ; enable_thinking is defined
"""

BLOCKS = [
    "a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\n  {% if yes %}\n  b\n  {% endif %}  \nc", "{% if yes -%}\n  b\n{%- endif %}\n c", "x {%+ if yes %}\ny{% endif +%}\nz",
    "a\r\n{% if yes %}\r\nb\r\n{% endif %}\r\nc\r\n", "a\rb\r{{ s }}\r", "\n\n{{ s }}\n\n", "{{ s }}\n", "  {{ s }}  \n", "{# c #}\nx", "a {#- c -#} b", "  {# c #}\n  x", "a{#\n#}b", "{# {{ s }} #}x", "{%- set x = 1 -%}\n\n{{ x }}",
    "{% raw %}{{ s }} {% if %}{% endraw %}", "{%- raw -%}  {{ s }}  {%- endraw -%} x", "  {% raw %}\n a {% endraw %}\n b", "{{ '{{' }}", "{{- s -}}  x", "  {{- s }}\n", "a\n\n   {%- if yes %} b{% endif %}", "\ufeff{% if yes %}x{% endif %}", "\u0085{%- if yes %}x{% endif -%}\u0085y", "{% if yes %}\n\n{% endif %}x", "\t{% if yes %}\t\n\tx{% endif %}",
    "{% for i in l %}{{ i }},{% endfor %}", "{% for i in e %}x{% else %}none{% endfor %}", "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }};{% endfor %}", "{% for c in u %}{{ c }}|{% endfor %}", "{% for i in n %}{% endfor %}", "{% for i in nil %}{% endfor %}", "{% for i in missing %}x{% else %}e{% endfor %}", "{% for a, b in [[1, 2], [3, 4]] %}{{ a + b }} {% endfor %}", "{% for a, b in [[1]] %}{% endfor %}", "{% for i in l if i > 1 %}{{ loop.index }}:{{ i }} {% endfor %}", "{% for i in l if i > 9 %}{% else %}e{% endfor %}", "{% for i in l %}{{ loop.previtem }}-{{ loop.nextitem }} {% endfor %}", "{% for i in l %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{% endfor %}", "{% for i in l %}{% for j in m %}{{ loop.index }}{{ j }}{% endfor %}{{ loop.index }} {% endfor %}", "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "{% break %}", "{% for i in [[1, [2]], [3]] recursive %}[{% if i is iterable %}{{ loop(i) }}{% else %}{{ i }}:{{ loop.depth }}{% endif %}]{% endfor %}", "{% for i in l %}{{ loop(l) }}{% endfor %}", "{% for i in l|sort %}{{ i }}{% endfor %}{{ i }}", "{% for i in l %}{{ loop }}{% endfor %}", "{% for (a, b), c in [[[1, 2], 3]] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for i in 1, 2 %}{{ i }}{% endfor %}", "{% for i in l[1:] + [9] %}{{ i }}{% endfor %}",
    "{% set x = 0 %}{% for i in l %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}", "{% for i in l %}{{ x }}{% set x = i %}{{ x }};{% endfor %}{{ x }}", "{% set ns = namespace(x=0) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "{% if yes %}{% set x = 1 %}{% endif %}{{ x }}", "{% set x, y = 1, 2 %}{{ x }}{{ y }}", "{% set x = 1, 2 %}{{ x }}", "{% set x %}a{{ s }}\n{% endset %}[{{ x }}]", "{% set x | upper %}abc{% endset %}{{ x }}", "{% set x | upper | replace('B', '-') %}abc{% endset %}{{ x }}", "{% set d.k = 2 %}", "{% set s = 'new' %}{{ s }}", "{% for i in l %}{% if loop.first %}{% set z = 'in' %}{% endif %}{{ z }}{% endfor %}{{ z }}", "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% for j in [1] %}{% set x = 3 %}{{ x }}{% endfor %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b }}", "{% set ns = namespace(_x=1) %}", "{% set ns = namespace(a=[]) %}{% set ns.a = ns.a + [1] %}{{ ns.a }}", "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}", "{% set true = 1 %}", "{% set x = y = 1 %}",
    "{% macro f(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(b=4, a=5) }} {{ f() }}", "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}", "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{% endmacro %}{{ f(b=2) }}", "{% macro f(a) %}{{ a }}{{ x }}{% endmacro %}{% set x = 'late' %}{{ f(1) }}", "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{% endcall %}", "{% macro f() %}{{ caller(1, 'x') }}{% endmacro %}{% call(a, b) f() %}{{ a }}{{ b }}{% endcall %}", "{% macro f() %}{{ caller() }}{% endmacro %}{{ f() }}", "{% macro f(a, b=a) %}{{ b }}{% endmacro %}{{ f(7) }}", "{% macro f(a) %}x{% endmacro %}{{ f(1)|upper }}{{ f(1) ~ 'y' }}{{ f(1)|length }}", "{% macro f(a) %}{% set q = 1 %}{% endmacro %}{{ f(1) }}{{ q }}", "{% macro f(a=1, b) %}{% endmacro %}", "{% macro f(x) %}\n  {{- x }}\n{% endmacro %}\n[{{ f('a') }}]", "{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}{{ f(none) }}{{ f(missing) }}", "{% macro f() %}{% for i in l %}{{ i }}{% endfor %}{% endmacro %}{{ f() }}{{ f.name }}", "{% if no %}{% macro f() %}x{% endmacro %}{% endif %}{{ f is defined }}", "{% for i in l %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %}", "{{ f() }}{% macro f() %}{% endmacro %}", "{% macro f(a, a2='x' if yes else 'y') %}{{ a2 }}{% endmacro %}{{ f(1) }}",
    "{% with a=1, b=2 %}{{ a + b }}{% endwith %}{{ a }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}", "{% with s='in' %}{{ s }}{% endwith %}{{ s }}", "{% set a = 1 %}{% with a=2, b=a %}{{ a }}{{ b }}{% endwith %}", "{% filter upper %}a{{ s }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}aa{% endfilter %}", "{% generation %}x{{ s }}{% endgeneration %}y", "{% for i in l %}{% generation %}{{ i }}{% set q = i %}{% endgeneration %}{{ q }}{% endfor %}",
    "{% for i in l %}{% break %}{% else %}none{% endfor %}", "{% for i in l %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% else %}none{% endfor %}", "{% for i in l %}{% continue %}{% else %}none{% endfor %}",
    "{% if e %}a{% elif nil %}b{% elif n %}c{% else %}d{% endif %}", "{% if missing %}a{% else %}b{% endif %}", "{% if missing.x %}a{% endif %}", "{% if no %}{{ s|nope }}{% endif %}x", "{% if n > 5 and s %}a{% endif %}", "{% if not (n == 7 or no) %}a{% else %}b{% endif %}", "{% if yes: %}a{% endif %}", "{% if %}{% endif %}", "{% if yes %}", "{% endif %}", "{% nope %}", "{{ s", "{% if yes", "{# open", "{{ ] }}", "{{ (1 }}", "{{ @ }}", "{% include 'x' %}", "{% block b %}x{% endblock %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% autoescape true %}{{ '<' }}{% endautoescape %}", "{% print s %}", "{% do l.append(1) %}", "{{ s }}{{ }}", "}} %} #}", "{ { s } }", "{{s}}{{n}}", "{{\ns\n}}", "{%\nif yes\n%}x{%\nendif\n%}", "{{ s | upper }}", "{% set q = joiner('|') %}{% for i in l %}{{ q() }}{{ i }}{% endfor %}", "{% set q = cycler('a', 'b') %}{{ q.next() }}{{ q.next() }}{{ q.current }}{{ q.reset() }}{{ q.next() }}", "{% set g = l|map('string') %}{{ g|list }}{{ g|list }}", "{% set it = d.items() %}{{ it|list|length }}{{ it|list|length }}", "{% set g = l|select('odd') %}{% for i in g %}{{ i }}{% endfor %}{% if g %}t{% endif %}{% for i in g %}{{ i }}{% endfor %}",
]
for name in ["length", "upper", "lower", "trim", "title", "capitalize", "tojson", "tojson(ensure_ascii=true)", "string", "reverse", "list", "wordcount",
             "urlencode", "e", "indent(1)", "int", "float", "first", "last", "truncate(3)"]:
    BLOCKS.append("{% for x in texts %}[{{ x|" + name + " }}]{% endfor %}")
for call in ["strip()", "split()", "title()", "capitalize()", "swapcase()", "upper()", "isalpha()", "isspace()", "isupper()", "islower()", "splitlines()",
             "strip('\\n x')", "center(6, '.')", "split('\\n')", "replace('', '.')", "isascii()", "isdecimal()", "rsplit(none, 1)"]:
    BLOCKS.append("{% for x in texts %}[{{ x." + call + " }}]{% endfor %}")
BLOCKS += ["{{ texts }}", "{% for x in texts %}{{ [x] }}{% endfor %}", "{% for x in texts %}{{ x[::-1] }}{{ x[1:] }}{{ x < 'b' }}{% endfor %}"]
BLOCKS += [
    # A name that a frame stores is its own from the start, wherever it is read.
    "{% for i in l %}{{ s }}{% endfor %}{% set s = 'late' %}{{ s }}", "{% for i in l %}{% set q = s %}{{ q }}{% endfor %}{% set s = 'late' %}",
    "{{ s }}{% for i in l %}{{ s }}{% endfor %}{% set s = 'late' %}", "{% macro f() %}{{ s }}{% endmacro %}{{ f() }}{% set s = 'late' %}{{ f() }}",
    "{% if no %}{% set s = 1 %}{% endif %}{{ s }}", "{% if no %}{% set s = 1 %}{% endif %}{% for i in [1] %}{{ s }}{% endfor %}", "{% for i in l %}{% if no %}{% set s = i %}{% endif %}{{ s }}{% endfor %}",
    "{% for i in l %}{{ s }}{% set s = i %}{{ s }}{% endfor %}{{ s }}", "{% for i in l %}{% for j in [1] %}{{ s }}{% endfor %}{% set s = i %}{% endfor %}",
    "{% with %}{{ s }}{% set s = 1 %}{% endwith %}{{ s }}", "{% set q %}{{ s }}{% set s = 1 %}{{ s }}{% endset %}{{ q }}{{ s }}", "{% filter upper %}{{ s }}{% set s = 'x' %}{% endfilter %}{{ s }}",
    "{% macro f() %}{{ s }}{% set s = 1 %}{{ s }}{% endmacro %}{{ f() }}{{ s }}", "{% if yes %}{% macro f() %}x{% endmacro %}{% endif %}{{ f() }}",
    "{% for i in [1] %}{{ f is defined }}{% endfor %}{% macro f() %}x{% endmacro %}{{ f() }}", "{% for i in [1] %}{{ n }}{% endfor %}{% if no %}{% set n = 1 %}{% endif %}",
    "{% for i in [1] %}{{ n }}{% endfor %}{% set n, z = 1, 2 %}", "{% for i in [1] %}{{ bos_token }}{% endfor %}{% set bos_token %}b{% endset %}{{ bos_token }}", "{% for i in [1] %}{{ range(2)|list }}{% endfor %}{% set range = 1 %}",
    "{% if yes %}{{ s }}{% set s = 'x' %}{% elif no %}{% set s = 'y' %}{% else %}{% set s = 'z' %}{% endif %}{{ s }}",
    "{% set ns = namespace() %}{% for i in l %}{% macro f() %}{{ i }}{% endmacro %}{% if loop.first %}{% set ns.f = f %}{% endif %}{{ ns.f() }}{% endfor %}",
    # A loop takes its items one by one.
    "{% set ns = namespace(n=0) %}{% for i in l if ns.n < 2 %}{% set ns.n = ns.n + 1 %}{{ i }}{% endfor %}", "{% set ns = namespace(n=0) %}{% for i in l if ns.n < 2 %}{% set ns.n = ns.n + 1 %}{{ i }}{{ loop.last }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for i in l if ns.n < 2 %}{% set ns.n = ns.n + 1 %}{{ loop.length }}{{ i }}{% endfor %}", "{% set g = l|map('string') %}{% for i in g %}{{ i }}{% break %}{% endfor %}{{ g|list }}",
    "{% set g = l|map('string') %}{{ g|first }}{{ g|list }}", "{% set g = l|map('string') %}{{ '1' in g }}{{ g|list }}", "{% for i in l|map('string') %}{{ loop.nextitem }}{{ loop.previtem }}{{ loop.revindex }}{% endfor %}",
    # Ends of loops from within blocks.
    "{% for i in l %}{% set q %}a{% break %}{% endset %}{{ i }}{% endfor %}{{ q }}", "{% for i in l %}{% filter upper %}a{% if i == 1 %}{% continue %}{% endif %}{% endfilter %}{{ i }}{% endfor %}",
    "{% for i in l %}{% for j in e %}{% else %}{% break %}{% endfor %}{{ i }}{% endfor %}", "{% for i in l %}{% for j in e recursive %}{% else %}{% break %}{% endfor %}{{ i }}{% endfor %}",
    "{% for i in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "{% for i in l %}{% macro f() %}{% break %}{% endmacro %}{% endfor %}", "{% for i in l %}{% with %}{{ i }}{% break %}{% endwith %}{% endfor %}",
    # What macros take.
    "{% generation %}{{ varargs }}{{ kwargs }}{{ caller is defined }}{% endgeneration %}", "{% macro f() %}{% generation %}{{ varargs }}{% endgeneration %}{{ varargs }}{% endmacro %}{{ f(1) }}",
    "{% macro f() %}{% macro g() %}{{ varargs }}{% endmacro %}{{ g(2) }}{% endmacro %}{{ f(1) }}", "{% macro f() %}{% set varargs = 5 %}{{ varargs }}{% endmacro %}{{ f(1) }}", "{% macro f() %}{% set varargs = varargs %}{{ varargs }}{% endmacro %}{{ f(1) }}",
    "{% macro f(kwargs) %}{{ kwargs }}{% endmacro %}{{ f(1) }}{{ f(x=1) }}", "{% macro f(a, caller=none) %}{{ a }}{% if caller %}{{ caller() }}{% endif %}{% endmacro %}{% call f(1) %}in{% endcall %}{{ f(2) }}", "{% macro f(caller) %}{{ caller() }}{% endmacro %}{{ f(1) }}",
    "{% macro f(a=b, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f() }}{{ f(b=3) }}", "{% macro f(a=s) %}{{ a }}{% set s = 1 %}{% endmacro %}{{ f() }}", "{% macro f() %}{{ caller(1) }}{% endmacro %}{% call(x) f() %}{{ x }}{{ s }}{% set s = 2 %}{% endcall %}{{ s }}",
    "{% for i in l %}{% set loop = 1 %}{% endfor %}", "{% for i in l %}{% with loop = 5 %}{{ loop }}{% endwith %}{% endfor %}", "{% for i in l %}{% for j in [1] %}{{ loop.index }}{% else %}{{ loop.index }}{% endfor %}{% endfor %}", "{% for i in l if loop %}{{ i }}{% endfor %}", "{% for i in l %}{% for j in m if loop.first %}{{ j }}{% endfor %}{% endfor %}",
    "{% filter length %}abc{% endfilter %}", "{% filter first %}abc{% endfilter %}", "{% filter list %}abc{% endfilter %}", "{% filter first %}{% endfilter %}", "{% filter trim|length %} a {% endfilter %}", "{% filter escape %}<{% endfilter %}", "{% macro g() %}{% filter length %}a{% endfilter %}{% endmacro %}z", "{% set q %}{% filter length %}a{% endfilter %}{% endset %}", "{% set q | length %}abc{% endset %}{{ q }}", "{% if no %}{% filter length %}a{% endfilter %}{% endif %}y",
    "{% set x | replace('a', q) %}{% set q = 'b' %}aa{% endset %}{{ x }}", "{% filter replace('a', q) %}{% set q = 'b' %}aa{% endfilter %}",
]

CHATS = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "system-default": "{%- if messages[0]['role'] == 'system' %}{%- set loop_messages = messages[1:] %}{%- set system = messages[0]['content']|trim %}{%- else %}{%- set loop_messages = messages %}{%- set system = 'You help.' %}{%- endif %}{{ bos_token }}<<{{ system }}>>\n{% for m in loop_messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role|upper }}] {{ m.content|trim }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}{% if add_generation_prompt %}[ASSISTANT]{% endif %}",
    "dated": "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}Today: {{ date_string }}\n{%- for m in messages %}\n<|{{ m.role }}|>{{ m.content }}{% if not loop.last %}<|end|>{% endif %}{%- endfor %}",
    "think": "{%- for m in messages %}{%- set content = m.content %}{%- if m.role == 'assistant' and '</think>' in content %}{%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{{- '<|im_start|>' ~ m.role ~ '\\n' }}{%- if reasoning is defined and loop.last %}{{- '<think>\\n' ~ reasoning.strip('\\n') ~ '\\n</think>\\n\\n' }}{%- endif %}{{- content.lstrip('\\n') ~ '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- else %}{{- '<think>\\n' }}{%- endif %}{%- endif %}",
    "last-query": "{%- set ns = namespace(multi=true, last=messages|length - 1) %}{%- for m in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}{%- if ns.multi and m.role == 'user' and not (m.content.startswith('<tool>') and m.content.endswith('</tool>')) %}{%- set ns.multi = false %}{%- set ns.last = index %}{%- endif %}{%- endfor %}{{ ns.last }}:{% for m in messages %}{{ m.role[0] }}{% if loop.index0 > ns.last %}*{% endif %}{% endfor %}",
    "tools": "{%- if tools %}# Tools\n{%- for tool in tools %}\n{{ tool | tojson }}{% endfor %}{% endif %}{%- if tools is not none %}[T]{% endif %}{%- if documents is not none %}[D]{% endif %}{{ tools }}|{{ documents }}{% for m in messages %}{% if m.content is string %}{{ m.content }}{% elif m.content is mapping %}M{% else %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% if m.tool_calls is defined and m.tool_calls %}X{% endif %}{% endfor %}",
    "macro": "{%- macro turn(role, content, end=true) -%}\n<{{ role }}>{{ content }}{% if end %}</{{ role }}>{% endif %}\n{%- endmacro -%}\n{%- for m in messages -%}{{ turn(m.role, m.content, end=not loop.last or not add_generation_prompt) }}\n{% endfor -%}",
    "strip": "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.role == 'assistant' and loop.last %}{{- '<think>\\n\\n</think>\\n\\n' + m.content.lstrip('\\n') }}{%- else %}{{- m.content.strip('\\n') }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}",
    "crlf": "{% for m in messages %}\r\n<|im_start|>{{ m.role }}\r\n{{ m.content }}<|im_end|>\r\n{% endfor %}\r\n{% if add_generation_prompt %}\r\n<|im_start|>assistant\r\n{% endif %}\r\n",
    "pretty": "{% for message in messages %}\n    {% if message.role == 'user' %}\n        {{ '[INST] ' + message.content + ' [/INST]' }}\n    {% elif message.role == 'system' %}\n        {{ raise_exception('no system message') }}\n    {% else %}\n        {{ ' ' + message.content + eos_token }}\n    {% endif %}\n{% endfor %}\n",
    "json": "{{ messages|tojson(indent=2) }}{{ messages|map(attribute='role')|join(',') }}{{ messages|selectattr('role', 'equalto', 'user')|list|length }}{{ (messages|last).content|length }}",
    "repr": "{{ messages }}{{ add_generation_prompt }}{{ bos_token is defined }}{{ pad_token is defined }}",
}


def user(*contents):
    roles = itertools.cycle(["user", "assistant"])
    return [{"role": next(roles), "content": content} for content in contents]


CONVERSATIONS = [
    user("Hi"), user("Hi", "Hello", "Bye"), [{"role": "system", "content": " Be brief.\n"}, *user("Hi", "<think>\nhm\n</think>\n\nHello")],
    user("\n\n x \n", "\n    if x:\n        y\n"), user("😀 é 한\u0085\ufeff", "a\r\nb"), user("'\"\\ {{ s }} {% x %}", "</think>a"),
    [{"role": "system", "content": ""}, *user("", "")],
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def render(source, variables):
    """The text, or null with the kind of error, so that a renderer may refuse too."""
    try:
        return {"text": chat_template_utils._compile_jinja_template(source).render(**variables)}
    except Exception as error:  # whatever a template can raise
        return {"error": type(error).__name__}


def conversation_rows(templates):
    for (name, source), messages, prompt in itertools.product(templates, CONVERSATIONS, [True, False]):
        variables = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": prompt, **SPECIAL}
        for more in [{}, {"enable_thinking": False}] if "enable_thinking" in source else [{}]:
            yield {"name": name, "template": source, "variables": {**variables, **more}}


def self_made():
    context = {**VALUES, **{"messages": CONVERSATIONS[1], "documents": None, "add_generation_prompt": True, **SPECIAL}}
    # `;` parts the expressions; those with a line break of their own are written with one.
    sources = ["{{ " + part.strip() + " }}" for line in EXPRESSIONS.strip().split("\n") if "\\\n" not in line for part in line.split(" ; ")]
    for source in [*sources, *BLOCKS]:
        yield {"template": source, "variables": None, **render(source, context)}
    for row in conversation_rows(CHATS.items()):
        yield {**row, **render(row["template"], row["variables"])}


def main():
    rows = list(self_made())
    out = FIXTURES / "chat" / "templates.json"
    if len(sys.argv) > 1:
        files = [(path.name, path.read_text()) for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja"))]
        rows += [{**row, **render(row["template"], row["variables"])} for row in conversation_rows(files)]
        out = pathlib.Path(sys.argv[2])
    context = {**VALUES, "messages": CONVERSATIONS[1], "documents": None, "add_generation_prompt": True, **SPECIAL}
    head = {"transformers": transformers.__version__, "context": context}
    lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    out.write_text(json.dumps(head)[:-1] + ', "rows": [\n' + lines + "\n]}\n")
    print(out, len(rows), "rows,", sum("error" in row for row in rows), "errors of the template")


if __name__ == "__main__":
    main()
