"""`sparsec tune`: the tiles of a pattern's kernels that are fastest on this machine's GPU, kept for later compiles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsec.bench.tune import Timing, tune
from sparsec.cli.inputs import InputSources, inputs_option
from sparsec.cli.options import Length, choose, file_argument, kernel_options, open_program, pattern_options, resolved
from sparsec.diagnostics.model import CallError
from sparsec.diagnostics.progress import progress
from sparsec.pictures.drawing import LONGEST
from sparsec.plan.picks import Kind
from sparsec.plan.tiles import tiles_data
from sparsec.sema.inputs import OF_KEYS
from sparsec.sema.shapes import Sizes

if TYPE_CHECKING:
    from sparsec.runtime.module import SparseAttention


@click.command("tune")
@file_argument
@pattern_options
@kernel_options
@click.option(
    "--seq-len",
    "lengths",
    type=Length(16, LONGEST),
    multiple=True,
    default=(8192,),
    show_default=True,
    metavar="N",
    help="May be repeated: what is fastest over all of them counts.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--device", help="cuda or cuda:1; the GPU if left out.")
@inputs_option
@click.option("--backward", is_flag=True, help="Tune the kernels of the gradients too.")
@click.option("--decode", is_flag=True, help="Tune the kernel of single tokens over the KV cache too.")
@click.option(
    "--prefill-chunk", type=click.IntRange(1), metavar="M", help="Tune the kernel of M tokens over the KV cache too."
)
@click.option("--repeats", type=click.IntRange(1), default=9, show_default=True, help="Rounds; the median counts.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def tune_tiles(
    file: Path,
    name: str | None,
    settings: tuple[str, ...],
    heads: int | None,
    kv_heads: int | None,
    head_dim: int,
    dtype: str,
    lengths: tuple[int, ...],
    batch: int,
    device: str | None,
    sources: InputSources,
    backward: bool,
    decode: bool,
    prefill_chunk: int | None,
    repeats: int,
    form: str,
) -> None:
    """Time the tiles that may be fastest, on this machine's GPU, and keep the best of each kind of kernel.

    sparsec.compile then takes them for the same pattern, head counts, head dimension, dtype and card; its `tiles`
    overrides them. Each candidate is compiled first, which takes seconds. One whose result differs by more than
    rounding, or that does not fit the card, is named and not chosen.

    Example: sparsec tune examples/s2.sparse --pattern s2 --head-dim 128 --dtype bfloat16 --seq-len 32768 --backward
    """
    pattern = choose(open_program(file), name, settings, or_first=True)
    found = resolved(pattern, heads, kv_heads)
    sources.check(found)
    kinds = [Kind.FORWARD]
    kinds += [Kind.GRAD_QUERIES, Kind.GRAD_KEYS] if backward else []
    kinds += [Kind.CHUNK] if prefill_chunk is not None else []
    kinds += [Kind.DECODE] if decode else []
    if kinds[-1] in (Kind.CHUNK, Kind.DECODE) and any(each.kind in OF_KEYS for each in found.inputs):
        raise click.UsageError("expected no inputs that speak of keys with --decode or --prefill-chunk, got some")
    with progress() as report:
        report("importing torch")
        from sparsec.backends import registry
        from sparsec.bench.baselines import make_case
        from sparsec.runtime.build.tuned import keep_tiles
        from sparsec.runtime.compile import request_for

        cases = [make_case(found, batch, length, head_dim, dtype, device) for length in lengths]
        where = cases[0].device
        backend = registry.best(where.type)
        if backend is None or not registry.BACKENDS[backend].tiles:
            raise CallError(f"expected a GPU to tune kernels for, got {where}, whose kernels have no tiles to choose")
        if found.inputs:
            shapes = (Sizes(batch, found.heads, found.kv_heads, n, n, n, 0) for n in lengths)
            cases = [
                replace(case, given=sources.tensors(found, sizes, where))
                for case, sizes in zip(cases, shapes, strict=True)
            ]
        target = registry.backend(backend).target_of(where)

        def compiled(tiles: Mapping[str, Sequence[int | None]]) -> SparseAttention:
            return cases[0].compiled(pattern, backend, tiles=tiles)

        timing = Timing(compiled, cases, prefill_chunk or 1, repeats, {})
        tuning = tune(kinds, lengths, (target, head_dim, dtype), timing, report)
        with pattern.refusals():
            request = request_for(pattern, head_dim, head_dim, cases[0].dtype, found.heads, found.kv_heads)
            keep_tiles(request, target, where, tuning.tiles)
    setting = {"pattern": pattern.name, "target": target, "dtype": dtype, "batch": batch, "heads": found.heads}
    setting |= {"kv_heads": found.kv_heads, "head_dim": head_dim, "repeats": repeats}
    if form == "json":
        click.echo(json.dumps({**setting, **tuning.as_dict(), "tiles": tiles_data(tuning.tiles)}, indent=2))
        return
    click.echo("\n".join([", ".join(f"{key} {value}" for key, value in setting.items()), "", tuning.table(), ""]))
    kept = tiles_data(tuning.tiles)
    click.echo(f"kept: tiles={kept}" if kept else "kept: what is taken untuned is the fastest")
