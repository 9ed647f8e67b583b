"""`sparsec bench`: a pattern's time beside that of baselines, and how much of the possible it reaches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sparsec.bench.baseline_names import BASELINES
from sparsec.bench.cached import CachedFigures, cached_table, measure_cached
from sparsec.bench.forward import Measurement, forward_table, measure
from sparsec.bench.gradients import GradientFigures, gradients_table, measure_gradients
from sparsec.bench.host import host_table, measure_host
from sparsec.bench.kept import KeptFigures, kept_table, measure_kept
from sparsec.bench.paged import PagedFigures, measure_paged, paged_table
from sparsec.bench.sums import model_sums, sums_table
from sparsec.cli.bench_subject import BenchSetting, BenchSubject, shared_number
from sparsec.cli.inputs import InputSources, inputs_option
from sparsec.cli.kinds import check_layers_option, compiled_kinds, layer_kinds, told_after
from sparsec.cli.options import (
    Length,
    choose,
    file_argument,
    kernel_options,
    model_option,
    open_program,
    pattern_options,
    resolved,
)
from sparsec.diagnostics.progress import progress
from sparsec.diagnostics.tables import count
from sparsec.pictures.drawing import LONGEST
from sparsec.program import LayerKind, Pattern
from sparsec.sema.model import InputKind, ResolvedPattern

Summed = Measurement | GradientFigures | CachedFigures
Figures = Summed | KeptFigures | PagedFigures


@click.command()
@file_argument
@pattern_options
@model_option("Time each kind of layers of this model of the file, equal layers once, and add up all layers.")
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
    "--kv-dtype",
    type=click.Choice(["int8", "bfloat16", "float16"]),
    help="With --decode or --prefill-chunk: what the cache stores keys and values as, if not --dtype.",
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
    model: str | None,
    layers: int | None,
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
    kv_dtype: str | None,
    host: bool,
    repeats: int,
    form: str,
) -> None:
    """Time a pattern's forward pass (or its gradients) and the baselines, in turn, on the same tensors.

    The ideal speed-up is dense pairs over live pairs; "of ideal" is the speed-up over dense SDPA as a share of it. "of
    matmul" is the useful rate (4 x head dim x live pairs) as a share of torch.mm: in float32 on a CPU, in the same
    dtype on a GPU. There times are of replayed CUDA graphs, without the host's share; a call that no graph holds is
    named. With --model the kernels of all kinds of layers are built first, side by side.

    Example: sparsec bench examples/mistral.sparse --seq-len 8192 --seq-len 16384 --against sdpa
    """
    if backward + decode + (prefill_chunk is not None) > 1:
        raise click.UsageError("expected at most one of --backward, --decode and --prefill-chunk")
    check_layers_option(model, layers)
    program = open_program(file)
    kinds: tuple[LayerKind, ...] = ()
    if model is not None:
        if host or keep is not None or pages:
            raise click.UsageError("expected --model without --host, --keep and --pages")
        kinds = layer_kinds(program, model, layers, name, settings, (heads, kv_heads))
        given = sources.of_kinds([kind.meaning for kind in kinds])
        subjects = [BenchSubject(kind.pattern, kind.meaning, each) for kind, each in zip(kinds, given, strict=True)]
    else:
        pattern = choose(program, name, settings, or_first=True)
        subjects = [BenchSubject(pattern, resolved(pattern, heads, kv_heads), sources)]
    first = subjects[0]
    if host:
        if backward or decode or prefill_chunk is not None or keep is not None or against or device:
            raise click.UsageError("expected --host without other kinds of calls, --against and --device")
        _bench_host(first.pattern, first.meaning, head_dim, dtype, batch, repeats, form)
        return
    new = 1 if decode else prefill_chunk
    if new is not None and new > min(lengths):
        raise click.UsageError(f"expected a chunk of at most --seq-len {min(lengths)} tokens, got {new}")
    if keep is not None and (not decode or against is not None):
        raise click.UsageError("expected --keep with --decode and without --against")
    if pages and (not decode or against is not None or keep is not None or first.meaning.inputs):
        raise click.UsageError("expected --pages with --decode, without --against, --keep and inputs of the pattern")
    if shared_prefix is not None and (not pages or shared_prefix >= min(lengths)):
        raise click.UsageError("expected --shared-prefix with --pages, and fewer tokens than --seq-len")
    if keep is not None and {each.kind for each in first.meaning.inputs} != {InputKind.TOKENS}:
        raise click.UsageError("expected a pattern with inputs of kind tokens alone for --keep, got another")
    if kv_dtype is not None and (new is None or pages or keep is not None):
        raise click.UsageError("expected --kv-dtype with --decode or --prefill-chunk, without --pages and --keep")
    at = BenchSetting(lengths, batch, head_dim, dtype, device, kv_dtype)
    for subject in subjects:
        if keep is None and not kinds:
            sources.check(subject.meaning)
        subject.name_baselines(against, new, backward=backward)
        if keep is None and new is not None:
            subject.check_over_cache()
    with progress() as report:
        report("importing torch")
        from sparsec.bench.baselines import baselines_on, simplifications
        from sparsec.bench.own_baselines import check_own

        check_own(tuple(dict.fromkeys(name for subject in subjects for name in subject.baselines)))
        if kinds:
            build = {"gradients": backward, "cache": new is not None}
            modules = compiled_kinds(kinds, lambda n: subjects[n].compiled(at), report, **build)
        else:
            report(f"compiling {first.pattern.name}")
            modules = (first.compiled(at),)
        figures: list[list[Figures]] = []
        for n, (subject, attn) in enumerate(zip(subjects, modules, strict=True)):
            told = told_after(report, f"; {n} of {len(kinds)} kinds of layers are done" if kinds else "")
            if subject.meaning.inputs:
                told("drawing the inputs")
            figures.append([])
            for case in subject.cases(at, new, draws=keep is None):
                subject.baselines = against_these = baselines_on(case.device, subject.baselines)
                if keep is not None:
                    figures[-1].append(measure_kept(attn, case, keep, repeats=repeats, report=told))
                elif pages:
                    prefix = shared_prefix or 0
                    figures[-1].append(measure_paged(attn, case, pages, prefix=prefix, repeats=repeats, report=told))
                elif new is not None:
                    figures[-1].append(measure_cached(attn, case, new, against_these, repeats=repeats, report=told))
                else:
                    call = measure_gradients if backward else measure
                    figures[-1].append(call(attn, case, against_these, repeats=repeats, report=told))
    where = case.device
    setting = {
        **({"pattern": first.pattern.name} if model is None else {"model": model}),
        "target": modules[0].target,
        "device": str(where),
        "dtype": dtype,
        **({} if kv_dtype is None else {"kv_dtype": kv_dtype}),
        "batch": batch,
        "heads": shared_number([each.meaning.heads for each in subjects]),
        "kv_heads": shared_number([each.meaning.kv_heads for each in subjects]),
        "head_dim": head_dim,
        "repeats": repeats,
    }
    with_inputs = next((each.meaning for each in subjects if each.meaning.inputs), None)
    if with_inputs is not None and keep is None:
        setting["inputs"] = sources.described(with_inputs).removeprefix("inputs ")
    simpler: tuple[str, ...] = ()
    if keep is None and not pages:
        said = (line for each in subjects for line in simplifications(each.meaning, each.baselines))
        simpler = tuple(dict.fromkeys(said))
    results = [[each.as_dict() for each in of_kind] for of_kind in figures]
    counts = [len(kind.layers) for kind in kinds]
    timed = [[each for each in of_kind if isinstance(each, Summed)] for of_kind in figures]
    sums = model_sums(list(zip(counts, timed, strict=True))) if kinds else ()
    if form == "json":
        found: dict[str, Any] = {**setting, "simplifications": simpler}
        if kinds:
            found["kinds"] = [
                {"pattern": kind.pattern.name, "layers": kind.layers, "results": of_kind}
                for kind, of_kind in zip(kinds, results, strict=True)
            ]
            found["all_layers"] = [each.as_dict() for each in sums]
        else:
            (found["results"],) = results
        click.echo(json.dumps(found, indent=2))
        return
    heading = "\n".join([", ".join(f"{key} {value}" for key, value in setting.items()), *simpler, ""])
    tables = [_table(of_kind, subject.baselines) for of_kind, subject in zip(figures, subjects, strict=True)]
    if kinds:
        titles = [f"{kind}: {count(number, 'layer')}" for kind, number in zip(kinds, counts, strict=True)]
        tables = [f"{title}\n{shown}" for title, shown in zip(titles, tables, strict=True)]
        tables.append(f"all {sum(counts)} layers\n{sums_table(sums)}")
    click.echo(f"{heading}\n" + "\n\n".join(tables))


def _table(figures: Sequence[Figures], baselines: tuple[str, ...]) -> str:
    """Of figures of one kind."""
    kept = [each for each in figures if isinstance(each, KeptFigures)]
    paged = [each for each in figures if isinstance(each, PagedFigures)]
    cached = [each for each in figures if isinstance(each, CachedFigures)]
    gradients = [each for each in figures if isinstance(each, GradientFigures)]
    if kept:
        return kept_table(kept)
    if paged:
        return paged_table(paged)
    if cached:
        return cached_table(cached, baselines)
    if gradients:
        return gradients_table(gradients, baselines)
    return forward_table([each for each in figures if isinstance(each, Measurement)], baselines)


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
