"""A function that makes attention for a pattern -> a pytest test of it, for a file's patterns or for drawn ones.

Invariant: the callable is checked by `check_attention` alone, so a failure shows the smallest shape and the pattern.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import CallError
from sparsec.program import Pattern, Program, load, parse
from sparsec.sema.arguments import Given
from sparsec.sema.model import ResolvedPattern
from sparsec.testing.check import check_attention

SHAPES = 3

Test = Callable[..., Any]


def for_patterns(
    source: Pattern | Path | str | SearchStrategy[ResolvedPattern],
    *,
    name: str | None = None,
    params: Mapping[str, Given] | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    examples: int = 30,
    head_dim: int | None = None,
    value_dim: int | None = None,
    dtype: torch.dtype | Sequence[torch.dtype] = torch.float32,
    device: torch.device | str = "cpu",
    sink: torch.Tensor | None = None,
    probes: bool = False,
    lse: bool = True,
    gradients: bool = False,
    seeds: int | Sequence[int] = 0,
    max_keys: int | None = None,
) -> Callable[[Test], Test]:
    """Makes a test of a function that takes `pattern` (a `ResolvedPattern`; fixtures may follow) and returns
    attention for it.

    The attention is any callable that `check_attention` takes: attn(q, k, v, return_lse=True) -> (out, LSE),
    or with lse=False attn(q, k, v) -> out.
    source: a file (a Path, or a string that ends in `.sparse`), a text or a Pattern: a test for each of its patterns,
    or the one called `name`, over `examples` shapes; or a strategy such as `patterns()`: one test of `examples` drawn
    patterns, over a few shapes each. params, heads, kv_heads: for the file's patterns, as `sparsec.compile` has them.
    The others as for `check_attention`. Raises CallError, or DiagnosticError for a bad file, when it is imported.
    """

    integer("examples", examples, 1)
    if not isinstance(source, Pattern | Path | str | SearchStrategy):
        raise CallError(
            f"expected a path, a text, a Pattern or a strategy, as in @for_patterns('file.sparse'), got {source!r:.80}"
        )

    def check(attn: Any, pattern: ResolvedPattern, shapes: int) -> None:
        if not callable(attn):
            raise CallError(f"expected the test to return the attention to check, got {attn!r}")
        check_attention(
            attn,
            pattern,
            head_dim=head_dim,
            value_dim=value_dim,
            dtype=dtype,
            device=device,
            sink=sink,
            probes=probes,
            lse=lse,
            gradients=gradients,
            seeds=seeds,
            examples=shapes,
            max_keys=max_keys,
        )

    def decorate(make: Test) -> Test:
        if "pattern" not in inspect.signature(make).parameters:
            raise CallError(
                f"expected a test with the argument `pattern`, got {make.__name__}{inspect.signature(make)}"
            )
        drawn = isinstance(source, SearchStrategy)

        @wraps(make)
        def test(*args: Any, pattern: ResolvedPattern, **fixtures: Any) -> None:
            check(make(*args, pattern=pattern, **fixtures), pattern, SHAPES if drawn else examples)

        if isinstance(source, SearchStrategy):
            return _settings(examples)(given(pattern=source)(test))
        import pytest  # where it is used: drawn patterns are checked without it too

        found = {each.name: each.resolve(heads, kv_heads) for each in _patterns(source, name, params or {})}
        cases = [pytest.param(pattern, id=each) for each, pattern in found.items()]
        marked: Test = pytest.mark.parametrize("pattern", cases)(test)
        return marked

    return decorate


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def _patterns(source: Pattern | Path | str, name: str | None, params: Mapping[str, Given]) -> list[Pattern]:
    if isinstance(source, Pattern):
        if name is not None or params:
            raise CallError("expected name= and params= with a path or a text alone, got them with a Pattern")
        return [source]
    program: Program = load(source) if isinstance(source, Path) or source.endswith(".sparse") else parse(source)
    return [program.pattern(each, **params) for each in ([name] if name is not None else program.patterns)]
