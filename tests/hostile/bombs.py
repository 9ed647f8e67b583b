"""Files made to be expensive, by name; run as a program, checks each under a limit of memory and says what it took.

Invariant: a file is below the limits of its size and tokens, or far above them.
"""

from __future__ import annotations

import json
import resource
import sys
import time

MEBIBYTES = 512


def lines(count: int, line: str) -> str:
    """`line` for i from 1: `{before}` and `{after}` are its neighbours, the last one's being 0."""
    return "\n".join(line.format(i=i, before=i - 1, after=(i + 1) % count) for i in range(1, count))


def pattern(body: str) -> str:
    return f"pattern p {{ {body} }}"


def joined(sign: str, count: int, part: str) -> str:
    return f" {sign} ".join(part.format(i=i, next=i + 1) for i in range(1, count))


TEXT = {
    "parentheses": pattern("attend " + "(" * 300_000 + "full" + ")" * 300_000),
    "brackets": pattern("attend " + "[" * 16_000 + "]" * 16_000),
    "unclosed brackets": pattern("attend " + "([" * 16_000),
    "unopened brackets": pattern(")" * 32_000),
    "braces": "{" * 16_000 + "}" * 16_000,
    "signs": pattern("attend " + "~" * 32_000 + "full"),
    "negations": pattern("where " + "not " * 32_000 + "true attend full"),
    "chain of terms": pattern("attend " + joined("|", 16_000, "full")),
    "chain of conditions": pattern("where " + joined("and", 15_000, "true") + " attend full"),
    "huge integer": pattern(f"attend window({'9' * 1_000_000})"),
    "huge integers": pattern(f"attend {joined('|', 8_000, '9' * 127)}"),
    "huge decimals": pattern(f"scale 1e{'9' * 100} softcap 0.{'0' * 110}1e99 attend full"),
    "long name": f"pattern {'a' * 1_000_000} {{ attend full }}",
    "long names": "\n".join(f"pattern {'ab' * 59}{i} {{ attend {'ba' * 59}{i} }}" for i in range(3_900)),
    "comment": "# " + "c" * 1_000_000 + "\n" + pattern("attend full"),
    "comments": "#\n" * 32_000 + pattern("attend full"),
    "comments over the limit": "#\n" * 500_000,
    "documentation": ("#\n" * 100 + pattern("attend full")) * 200,
    "newlines": "\n" * 1_000_000 + pattern("attend full"),
    "megabytes": "# c\n" * 2_000_000,
    "unknown characters": "$ " * 500_000,
    "unknown characters between comments": "$#\n" * 16_000,
    "no characters": "\0\n" * 16_000,
    "dots": "." * 1_000_000,
    "characters of no width": "e" + "\u0301" * 300_000 + "\u202e" * 100_000,
    "errors on one line": pattern("attend ) " * 16_000),
    "misspelt words": pattern("attnd full " * 15_000),
    "keywords as names": pattern("let block = 1 " * 8_000),
}
NAMES = {
    "many patterns": lines(800, "pattern p{i} {{ heads 64  causal  attend window(h + 1) | stride(8b, phase = h) }}"),
    "many unknown names": lines(3000, "pattern p{i} {{ attend unknown{i} }}"),
    "one cycle": "pattern p0 { attend p1 }\n" + lines(3000, "pattern p{i} {{ attend p{after} }}"),
    "chain of patterns": "pattern p0 { attend full }\n" + lines(3000, "pattern p{i} {{ attend p{before} }}"),
    "chain of parameters": "param a0 = 1\n" + lines(3000, "param a{i} = a{before} + a{before}"),
    "cycle of parameters": "param a0 = a1\n" + lines(8000, "param a{i} = a{after}"),
    "powers": "param a0 = 2\n" + lines(150, "param a{i} = a{before} * a{before}") + pattern("attend window(a149)"),
    "many parameters": pattern("attend q(" + ", ".join(f"a{i} = 2" for i in range(3000)) + ")")
    + " pattern q(" + ", ".join(f"a{i} = 1" for i in range(3000)) + ") { attend full }",
    "parameters of every reference": lines(2000, "pattern p{i} {{ attend q }}")
    + " pattern q(" + ", ".join(f"a{i} = {i}" for i in range(1000)) + ") { attend full }",
    "unknown arguments": pattern("attend window(" + ", ".join(f"a{i} = 1" for i in range(8000)) + ")"),
    "statements again": pattern("causal " * 30_000 + " attend full"),
    "definitions again": pattern("let x = 1 " * 8000 + " attend full"),
    "many inputs": "pattern p0 { " + lines(1500, "input x{i} : columns") + " attend full }"
    + lines(1500, "pattern p{i} {{ attend p{before} }}"),
}  # fmt: skip
VALUES = {
    "doubling": "pattern p0 { attend sink(4) | window(8) }\n"
    + lines(40, "pattern p{i} {{ attend p{before} | p{before} }}"),
    "doubling heads": "pattern p0 { heads 4096  attend window(h + 1) }\n"
    + lines(40, "pattern p{i} {{ heads 4096  attend p{before} | p{before} }}"),
    "doubling by thirty": "pattern p0 { attend full }\n"
    + lines(400, "pattern p{i} {{ attend " + " | ".join(["p{before}"] * 30) + " }}"),
    "doubling lets": pattern("heads 4096 let a0 = window(h + 1)\n"
    + lines(120, "let a{i} = a{before} | a{before}") + " attend a119"),
    "chain of lets": pattern("let a0 = 1\n" + lines(3000, "let a{i} = a{before} + 1") + "\nattend window(a2999)"),
    "many heads and terms": pattern("heads 4096 attend " + joined("|", 60, "window(h + {i})")),
    "wide shared set": pattern("heads 4096 let big = " + joined("|", 120, "window({i})")
    + " attend big | window(h + 1000)"),
    "many arms": pattern("heads 4096\n" + lines(1500, "where h == {i} attend window({i})")),
    "heads": pattern("heads 2147483647 attend full"),
    "heads of their own": pattern("heads 4096 attend window(h * 3 + 1) | stride(h + 1) | dilated(h + 2) | sink(h)"),
    "layers": pattern("attend full") + " model m { layers 2147483647 use p }",
    "many layers": "pattern p(n = 1) { heads 64 attend window(n + h) } model m { layers 4096 use p(n = l + 1) }",
    "arms of layers": pattern("attend full") + "model m { layers 4096 " + lines(4000, "where l == {i} use p") + " }",
    "many models": pattern("attend full") + lines(2500, "model m{i} {{ layers 4096 use p }}"),
    "many models that differ": "pattern p(n = 1) { heads 4096 attend window(n + h) }\n"
    + lines(1000, "model m{i} {{ layers 4096 use p(n = l + {i}) }}"),
    "many draws": pattern("heads 4096 attend random(2147483647)"),
    "drawn unions": pattern("heads 4096 attend " + joined("|", 60, "random(4096, seed = {i})")),
    "large constants": pattern("attend stride(2147483647) | stride(33554431b) | chunk(2147483647, back = 2147483647)"),
    "long list": "pattern p(x = [" + ", ".join(map(str, range(9000))) + "]) { heads 4096  where h in x attend full }",
    "wide ranges": pattern("heads 4096 where h in [" + ", ".join(f"{i}..{i}000000" for i in range(1, 2000))
    + "] attend full"),
    "bands of a union": pattern("causal attend " + joined("|", 60, "(window({next}0) - window({i}0))")),
    "bands of an intersection": pattern("heads 2 attend "
    + joined("&", 60, "(window({i}0) | sink({i}) | stride({next}))")),
    "bands of a complement": pattern("heads 2 attend ~(" + joined("|", 60, "~(window({i}) & stride({next}))") + ")"),
    "bands of strides": pattern("heads 64 attend " + joined("&", 60, "~stride({next}, phase = h)")),
    "bands of many patterns": lines(700,
    "pattern p{i} {{ heads 128 causal attend (window({i}) | sink(h) | stride({i}b)) & ~(window(3) | stride(7)) }}"),
    "tiles": pattern("heads 64 attend " + joined("|", 60, "rows({i}1..{i}3) & columns({i}5..{i}8)")),
}  # fmt: skip
FILES = {**TEXT, **NAMES, **VALUES}


def main() -> None:
    """A line of JSON for each file: its name, the seconds of processor time, and what was found."""
    resource.setrlimit(resource.RLIMIT_AS, (MEBIBYTES << 20, MEBIBYTES << 20))
    from sparsec import program
    from sparsec.diagnostics.render import render_json, render_text
    from sparsec.syntax.parser import read_source

    program.parse("pattern p { attend full }")
    for name, text in FILES.items():
        start = time.process_time()
        try:
            source, found = read_source(name, text.encode())
            if source is not None:
                found = program.check(source)[1]
            render_json(found)
            said = f"{len(render_text(found))} characters, {sorted({diagnostic.code for diagnostic in found})}"
        except Exception as error:  # the tests say what it was
            said = repr(error)[:500]
        print(json.dumps([name, time.process_time() - start, said]), flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
