"""Names and texts that mean something to C++, Python, Triton, Jinja, a shell, a terminal or a file system.

Invariant: an `IDENTIFIERS` entry is a name of the language; a `PAYLOADS` entry is none, and stands in comments, values
that a caller gives, and file names.
"""

from __future__ import annotations

CPP = (
    "alignas asm auto bool break case catch char class concept const constexpr continue decltype default delete do "
    "double else enum explicit export extern float for friend goto if inline int long mutable namespace new noexcept "
    "nullptr operator private protected public register reinterpret_cast return short signed sizeof static struct "
    "switch template this thread_local throw try typedef typename union unsigned using virtual void volatile wchar_t "
    "while __asm__ __attribute__ __FILE__ __LINE__ NULL INFINITY NAN EOF assert errno main memcpy system abort printf "
    "std size_t int64_t omp_get_thread_num sparsec sparsec_forward sparsec_call sparsec_list _Pragma __builtin_trap "
    "CON SHA256SUMS"
)
PYTHON = (
    "None True False def lambda class_ import from_ exec eval compile open print self cls __import__ __class__ "
    "__builtins__ __globals__ __file__ __name__ tl triton jit program_id load store dot constexpr kernel forward_0 "
    "yield async await assert_ raise del global_ nonlocal pass except finally with"
)
JINJA = "view block_ endblock endfor endif raw endraw include extends macro set super cycler namespace joiner"
SHADOWS = "q k v out lse i j h_ b_ n_q n_k q0 scale_ keys tile head lane lists slots lengths counts places"
LONG = ("a" * 128, "_" * 128, "Z9" * 64, "_", "__", "_0")
IDENTIFIERS = tuple(dict.fromkeys((*f"{CPP} {PYTHON} {JINJA} {SHADOWS}".split(), *LONG)))

_CODE = (
    *("*/ int system(const char*); /*", "*/", "/*", "// \\", "\\", "\\\\"),
    *("\\n#include </etc/passwd>", "??/", "??)"),
    *("#include </etc/passwd>", "#pragma omp parallel", 'R"x(', ')x"', '"""', "'''"),
    *('""" + __import__("os").x + """',),
    *('"); system("id"); ("', "'); import os; os.system('id') #", "\\u002a\\u002f", "\\x2a/", "\r#define int char"),
)
_TEMPLATES = (
    *("{{", "}}", "{%", "%}", "{#", "#}", "{{ 7 * 7 }}", "{% include '/etc/passwd' %}"),
    *("{{ view.__class__.__mro__ }}",),
    *("{{ ''.__class__.__base__.__subclasses__() }}", "{%- raw %}", "# for x in y", "%s%s%n"),
    *("%(x)s", "{0}", "{x!r}"),
    *("{0.__class__}", "$x", "${x}", "f'{1+1}'", "<script>alert(1)</script>", "]]>", "&lt;"),
)
_SHELL = (
    *("$(id)", "`id`", "; id", "| id", "&& id", "> /tmp/x", "-o/tmp/x", "--help", "-", "!!"),
    *("~root", "$IFS", "*", "?"),
    *("-fplugin=/tmp/x.so", "@/tmp/response", "-Wl,-rpath,/tmp", "\n;id", "\t", "' '", '" "'),
)
_PATHS = (
    *(
        "../",
        "../../etc/passwd",
        "/etc/passwd",
        "/dev/zero",
        "//host/share",
        "C:\\x",
        ".",
        "..",
        "...",
        ".hidden",
    ),
    *(
        "a/b",
        "a\\b",
        "manifest.json",
        "layout.json",
        "forward.so",
        "kernel.py",
        "%2e%2e%2f",
        "file:///etc",
    ),
    *("x" * 255, "~", "x.sparse/..", " ", "trailing."),
)
_UNICODE = (
    *(
        "\0",
        "a\0b",
        "\x1b[2J",
        "\x1b]0;x\x07",
        "\x7f",
        "\x85",
        "\u2028",
        "\u2029",
        "\u202e",
        "\u2066",
        "\ufeff",
        "\u00ad",
    ),
    *(
        "ｓystem",
        "е",
        "ﬁ",
        "𝐢𝐧𝐭",
        "é",
        "e\u0301",
        "\U0001f600",
        "İ",
        "ß",
        "∞",
        "١",
        "²",
        "\ud7ff",
        "\ue000",
        "\U0010ffff",
    ),
)
PAYLOADS = (*_CODE, *_TEMPLATES, *_SHELL, *_PATHS, *_UNICODE)
