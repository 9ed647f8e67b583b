"""`sparsec bench`: a pattern's time beside that of baselines, and how much of the possible it reaches."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsec.bench.baseline_names import BASELINES, DENSE, GRADIENT_BASELINES, USUAL, USUAL_WITH_INPUTS, baseline_label
from sparsec.bench.cached import CachedFigures, cached_table, measure_cached
from sparsec.bench.forward import Measurement, launched_lines, measure
from sparsec.bench.gradients import GradientFigures, gradients_table, measure_gradients
from sparsec.bench.host import host_table, measure_host
from sparsec.bench.kept import KeptFigures, kept_table, measure_kept
from sparsec.bench.paged import PagedFigures, measure_paged, paged_table
from sparsec.cli.inputs import InputSources, inputs_option
from sparsec.cli.options import Length, choose, file_argument, kernel_options, open_program, pattern_options, resolved
from sparsec.diagnostics.progress import progress
from sparsec.diagnostics.tables import duration, percent, table
from sparsec.pictures.drawing import LONGEST
from sparsec.program import Pattern
from sparsec.sema.inputs import OF_KEYS
from sparsec.sema.model import InputKind, ResolvedPattern
from sparsec.sema.shapes import Sizes

if TYPE_CHECKING:
    from sparsec.bench.baselines import BenchCase


@click.command()
@file_argument
@pattern_options
@kernel_options
@click.option(
    "--seq-len",
    "lengths",
    type=Length(1, LONGEST),
    multiple=True,
    default=(8192,),
    show_default=True,
    metavar="N",
    help="May be repeated.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--device", help="cpu, cuda or cuda:1; the GPU if left out and there is one.")
@inputs_option
@click.option(
    "--against",
    help=f"Any of {', '.join(BASELINES)}, with --backward eager too, with commas; or none. MODULE:CALLABLE is "
    "attention of your own, (q, k, v) -> out, from a module that can be imported or a file here. On a GPU sdpa "
    "stands for flash and cudnn; window is sparsec's own, of as many keys, with --decode. If left out: sdpa, flex and, "
    "with --backward, eager; of a pattern with inputs sdpa, masked, flex, gather and, with --decode, window.",
)
@click.option("--backward", is_flag=True, help="Time forward and backward together, and backward alone.")
@click.option("--decode", is_flag=True, help="Time one token over the KV cache; baselines keep every key.")
@click.option(
    "--keep",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="With --decode, of a pattern with inputs of kind tokens: time a token over a cache that keeps this share of "
    "all keys, beside one that keeps all, SDPA, and a window of as many keys.",
)
@click.option(
    "--pages",
    type=click.IntRange(1),
    multiple=True,
    metavar="N",
    help="With --decode: time a token of each of --batch requests of --seq-len/8 to --seq-len tokens over pages of N, "
    "beside a KV cache of as many. May be repeated.",
)
@click.option(
    "--shared-prefix",
    type=click.IntRange(1),
    metavar="N",
    help="With --pages: time it too where the pages of the first N tokens are the same ones for all requests.",
)
@click.option(
    "--prefill-chunk", type=click.IntRange(1), metavar="M", help="Time a chunk of M tokens over the KV cache, likewise."
)
@click.option(
    "--host",
    is_flag=True,
    help="Time the host's part of calls to Triton kernels, on a few tokens, with launches that do nothing; no GPU is "
    "needed.",
)
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True, help="Rounds; the median counts.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def bench(
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
    against: str | None,
    backward: bool,
    decode: bool,
    keep: float | None,
    pages: tuple[int, ...],
    shared_prefix: int | None,
    prefill_chunk: int | None,
    host: bool,
    repeats: int,
    form: str,
) -> None:
    """Time a pattern's forward pass (or its gradients) and the baselines, in turn, on the same tensors.

    The ideal speed-up is dense pairs over live pairs; "of ideal" is the speed-up over dense SDPA as a share of it. "of
    matmul" is the useful rate (4 x head dim x live pairs) as a share of torch.mm: in float32 on a CPU, in the same
    dtype on a GPU. There times are of replayed CUDA graphs, without the host's share; a call that no graph holds is
    named.

    Example: sparsec bench examples/mistral.sparse --seq-len 8192 --seq-len 16384 --against sdpa
    """
    if backward + decode + (prefill_chunk is not None) > 1:
        raise click.UsageError("expected at most one of --backward, --decode and --prefill-chunk")
    pattern = choose(open_program(file), name, settings, or_first=True)
    found = resolved(pattern, heads, kv_heads)
    if host:
        if backward or decode or prefill_chunk is not None or keep is not None or against or device:
            raise click.UsageError("expected --host without other kinds of calls, --against and --device")
        _bench_host(pattern, found, head_dim, dtype, batch, repeats, form)
        return
    new = 1 if decode else prefill_chunk
    if new is not None and new > min(lengths):
        raise click.UsageError(f"expected a chunk of at most --seq-len {min(lengths)} tokens, got {new}")
    if keep is not None and (not decode or against is not None):
        raise click.UsageError("expected --keep with --decode and without --against")
    if pages and (not decode or against is not None or keep is not None or found.inputs):
        raise click.UsageError("expected --pages with --decode, without --against, --keep and inputs of the pattern")
    if shared_prefix is not None and (not pages or shared_prefix >= min(lengths)):
        raise click.UsageError("expected --shared-prefix with --pages, and fewer tokens than --seq-len")
    if keep is not None and {each.kind for each in found.inputs} != {InputKind.TOKENS}:
        raise click.UsageError("expected a pattern with inputs of kind tokens alone for --keep, got another")
    if keep is None:
        sources.check(found)
    usual: tuple[str, ...] = USUAL_WITH_INPUTS if found.inputs else USUAL
    if found.inputs and new is not None:
        usual = (*usual, "window")
    elif backward and not found.inputs:
        usual = (*usual, "eager")
    named = _named_baselines(against, GRADIENT_BASELINES if backward else BASELINES, usual)
    if keep is None and new is not None and any(input_.kind in OF_KEYS for input_ in found.inputs):
        raise click.UsageError("expected no inputs that speak of keys with --decode or --prefill-chunk, got some")
    with progress() as report:
        report("importing torch")
        import sparsec
        from sparsec.bench.own_baselines import check_own

        check_own(named)
        from sparsec.bench.baselines import baselines_on, make_case, simplifications

        cases = [make_case(found, batch, length, head_dim, dtype, device) for length in lengths]
        if found.inputs and keep is None:
            report("drawing the inputs")
            cases = [replace(case, given=sources.tensors(found, _sizes(case, new), case.device)) for case in cases]
        baselines = baselines_on(cases[0].device, named)
        report(f"compiling {pattern.name}")
        attn = sparsec.compile(
            pattern,
            heads=found.heads,
            kv_heads=found.kv_heads,
            head_dim=head_dim,
            dtype=cases[0].dtype,
            device=cases[0].device,
        )
        measured: list[Measurement] = []
        gradients: list[GradientFigures] = []
        cached: list[CachedFigures] = []
        kept: list[KeptFigures] = []
        paged: list[PagedFigures] = []
        for case in cases:
            if keep is not None:
                kept.append(measure_kept(attn, case, keep, repeats=repeats, report=report))
            elif pages:
                found_paged = measure_paged(
                    attn, case, pages, prefix=shared_prefix or 0, repeats=repeats, report=report
                )
                paged.append(found_paged)
            elif new is not None:
                cached.append(measure_cached(attn, case, new, baselines, repeats=repeats, report=report))
            elif backward:
                gradients.append(measure_gradients(attn, case, baselines, repeats=repeats, report=report))
            else:
                measured.append(measure(attn, case, baselines, repeats=repeats, report=report))
    setting = {
        "pattern": pattern.name,
        "target": attn.target,
        "device": str(cases[0].device),
        "dtype": dtype,
        "batch": batch,
        "heads": found.heads,
        "kv_heads": found.kv_heads,
        "head_dim": head_dim,
        "repeats": repeats,
        **({"inputs": sources.described(found).removeprefix("inputs ")} if found.inputs and keep is None else {}),
    }
    simpler = () if keep is not None or pages else simplifications(found, baselines)
    if form == "json":
        results = [each.as_dict() for each in measured or gradients or cached or kept or paged]
        click.echo(json.dumps({**setting, "simplifications": simpler, "results": results}, indent=2))
        return
    click.echo("\n".join([", ".join(f"{key} {value}" for key, value in setting.items()), *simpler, ""]))
    if kept:
        click.echo(kept_table(kept))
    elif paged:
        click.echo(paged_table(paged))
    elif cached:
        click.echo(cached_table(cached, baselines))
    else:
        click.echo(gradients_table(gradients, baselines) if backward else _table(measured, baselines))


def _bench_host(
    pattern: Pattern, found: ResolvedPattern, head_dim: int, dtype: str, batch: int, repeats: int, form: str
) -> None:
    if found.inputs:
        raise click.UsageError("expected a pattern without inputs for --host, got one with some")
    with progress() as report:
        report("importing torch")
        measured = measure_host(pattern, found, head_dim, dtype, batch, repeats=repeats, report=report)
    setting = {
        "pattern": pattern.name,
        "dtype": dtype,
        "batch": batch,
        "heads": found.heads,
        "kv_heads": found.kv_heads,
        "head_dim": head_dim,
        "repeats": repeats,
    }
    if form == "json":
        click.echo(json.dumps({**setting, "results": [each.as_dict() for each in measured]}, indent=2))
        return
    click.echo("\n".join([", ".join(f"{key} {value}" for key, value in setting.items()), "", host_table(measured)]))


def _sizes(case: BenchCase, new: int | None) -> Sizes:
    """Those of the timed call."""
    heads, kv_heads = case.pattern.heads, case.pattern.kv_heads
    n_q = case.length if new is None else new
    return Sizes(case.batch, heads, kv_heads, n_q, n_q, case.length, case.length - n_q)


def _named_baselines(text: str | None, known: Collection[str], usual: tuple[str, ...]) -> tuple[str, ...]:
    if text is None:
        return usual
    names = () if text == "none" else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if any(name not in known and not _own(name) for name in names):
        raise click.BadParameter(
            f"expected names among {', '.join(known)}, or MODULE:CALLABLE, got {text!r}", param_hint="'--against'"
        )
    return names


def _own(name: str) -> bool:
    """Whether it is MODULE:CALLABLE."""
    module, colon, path = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *path.split(".")))


def _table(measured: list[Measurement], baselines: tuple[str, ...]) -> str:
    columns = [column for name in baselines for column in (f"{name} ms", f"vs {name}")]
    head = ("tokens", "live", "ms", *columns, "ideal", "of ideal", "GFLOP/s", "matmul GFLOP/s", "of matmul")
    rows = []
    for each in measured:
        against = []
        for name in baselines:
            seconds = each.baselines.get(name)
            against += ["-", "-"] if seconds is None else [_ms(seconds), f"{seconds / each.seconds:.2f}x"]
        rows.append(
            (
                str(each.length),
                percent(each.live_pairs / each.dense_pairs),
                _ms(each.seconds),
                *against,
                f"{each.ideal:.2f}x",
                "-" if each.achieved is None else f"{each.achieved:.2f}",
                f"{each.gflops:.0f}",
                f"{each.sgemm_gflops:.0f}",
                f"{each.gflops / each.sgemm_gflops:.2f}",
            )
        )
    of = "the causal pairs" if all(each.causal for each in measured) else "the pairs that a dense kernel computes"
    dense = ", ".join(name for name in baselines if name in DENSE)
    lines = [table(head, rows), "", f"live: share of {of}"]
    if dense:
        lines[-1] += f"; {dense}: dense" + (" causal" if measured[0].causal else "")
    lines += launched_lines(measured)
    compiled = [each.flex_compile_seconds for each in measured if each.flex_compile_seconds is not None]
    if compiled:
        lines.append(f"compiling FlexAttention, not counted: {', '.join(map(duration, compiled))}")
    masks = [each.flex_mask_seconds for each in measured if each.flex_mask_seconds is not None]
    if masks:
        lines.append(f"making FlexAttention's BlockMask, at each call, not counted: {', '.join(map(duration, masks))}")
    lines += dict.fromkeys(
        f"{baseline_label(name)} did not run: {why}" for each in measured for name, why in each.absent.items()
    )
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"
