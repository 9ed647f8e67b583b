"""Makes Triton's interpreter about twice as fast, for processes that run nothing else of Triton's.

Invariant: the numbers that kernels compute stay the same; what is left out has no effect or has been done before.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace


class Lasting:
    """In place of what undoes the changes to `triton.language` after a launch: they stay."""

    def restore(self) -> None:
        pass


def make_quick() -> None:
    """Changes the interpreter of the installed Triton in this process.

    By itself it changes `triton.language` again in every call of a `@triton.jit` function, and looks all of the module
    up for that; here it does so once. And it computes integers in 64 bits beside their own to find overflows, but
    reports none unless `debug` is set.
    """
    from triton.runtime import interpreter

    interpreter.interpreter_builder.options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": interpreter.tl, "core": interpreter.tl.core}))
    interpreter._patch_lang = lambda fn: Lasting()
