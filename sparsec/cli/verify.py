"""`sparsec verify`: whether compiled patterns compute what their file says, by drawn cases and, if asked, by proof.

Invariant: a failure is printed with a command that runs it again.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparsec.backends import registry
from sparsec.cli.inputs import InputSources, inputs_option
from sparsec.cli.kinds import check_layers_option, compiled_kinds, layer_kinds, told_after
from sparsec.cli.options import (
    choose,
    file_argument,
    kernel_options,
    model_option,
    open_program,
    pattern_options,
    resolved,
    value_dim_option,
)
from sparsec.cli.proofs import check_prover, claims_about, claims_text, extras
from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.progress import progress
from sparsec.diagnostics.tables import duration, table
from sparsec.pipeline import Compilation
from sparsec.program import LayerKind, Pattern
from sparsec.sema.model import ResolvedPattern

if TYPE_CHECKING:
    from sparsec.bench.baselines import BenchCase
    from sparsec.prove import Claim
    from sparsec.runtime.module import SparseAttention
    from sparsec.testing.verify import Failure, Result

EXAMPLES = 20
SEED_LIMIT = 2**64 - 1
_NAMES = {"forward": "output and LSE", "probes": "exact probes", "gradients": "gradients", "cache": "cache walk"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one pattern; `kind`: of a model's layers that have it."""

    name: str
    kind: LayerKind | None
    results: tuple[Result, ...]
    claims: tuple[Claim, ...]
    notes: tuple[str, ...]

    @property
    def held(self) -> bool:
        failed = any(result.failure is not None for result in self.results)
        return not failed and all(claim.status == "proved" for claim in self.claims)


@click.command()
@file_argument
@pattern_options
@model_option("Test each kind of layers of this model of the file, equal layers once.")
@click.option("--layer", type=click.IntRange(0), help="Of the model, only the kind of this layer, from 0.")
@kernel_options
@value_dim_option
@inputs_option
@click.option("--device", help="cpu, cuda or cuda:1; the GPU if left out and there is one.")
@click.option("--target", type=click.Choice(registry.compared()), help="What runs it; the device's best if left out.")
@click.option(
    "--examples",
    type=click.IntRange(0, 1_000_000),
    default=EXAMPLES,
    show_default=True,
    help="Cases drawn for each property; 0 for none.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, SEED_LIMIT),
    default=0,
    show_default=True,
    help="The same seed draws the same cases.",
)
@click.option("--case", "case_text", metavar="CASE", help="Run this case alone, as a failure prints it.")
@click.option("--prove", is_flag=True, help="Prove the plan's claims for all lengths too; needs z3.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def verify(
    ctx: click.Context,
    file: Path,
    name: str | None,
    settings: tuple[str, ...],
    heads: int | None,
    kv_heads: int | None,
    model: str | None,
    layers: int | None,
    layer: int | None,
    head_dim: int,
    value_dim: int | None,
    dtype: str,
    sources: InputSources,
    device: str | None,
    target: str | None,
    examples: int,
    seed: int,
    case_text: str | None,
    prove: bool,
    form: str,
) -> None:
    """Test that a file's patterns, compiled, compute what it says.

    For drawn lengths, offsets and inputs: output and log-sum-exp within the tolerance policy; exact probes (how many
    keys each query sees, which ones, and that no other one matters); gradients; and a sequence taken through the KV
    cache in chunks and single tokens. A failure is shrunk to its smallest case. Exits with 0 if all held, 1 if
    something failed or was not proved. With --model the kernels of all kinds of layers are built first, side by side.

    Example: sparsec verify examples/s2.sparse --pattern s2 --examples 50
    """
    if not (examples or case_text or prove):
        raise click.UsageError("expected --prove with --examples 0, which tests nothing")
    if prove:
        check_prover()
    check_layers_option(model, layers)
    if layer is not None and model is None:
        raise click.UsageError("expected --layer with --model, got a pattern")
    program = open_program(file)
    subjects: list[tuple[Pattern, ResolvedPattern, InputSources, LayerKind | None]] = []
    kinds: tuple[LayerKind, ...] = ()
    if model is not None:
        kinds = _only(layer_kinds(program, model, layers, name, settings, (heads, kv_heads)), layer)
        given = sources.of_kinds([kind.meaning for kind in kinds])
        subjects = [(kind.pattern, kind.meaning, each, kind) for kind, each in zip(kinds, given, strict=True)]
    else:
        patterns = [choose(program, each, settings) for each in ((name,) if name is not None else program.patterns)]
        if case_text is not None and len(patterns) > 1:
            raise click.UsageError(f"expected --pattern with --case, one of: {', '.join(program.patterns)}")
        subjects = [(pattern, resolved(pattern, heads, kv_heads), sources, None) for pattern in patterns]
        for _, meaning, *_ in subjects:
            sources.check(meaning)
    if case_text is not None and len(subjects) > 1:
        raise click.UsageError(f"expected --layer with --case, since the model has {len(kinds)} kinds of layers")
    again = _command(ctx, file)
    tests = [_Tested(*each, head_dim, value_dim or head_dim, dtype, device, target) for each in subjects]
    if examples and case_text is None and kinds:
        with progress() as report:
            report("importing torch")
            modules = compiled_kinds(kinds, lambda n: tests[n].compiled(), report, gradients=True, cache=True)
        for tested, attn in zip(tests, modules, strict=True):
            tested.attn = attn
    verdicts = []
    for n, tested in enumerate(tests):
        with progress() as report:
            tested.report = told_after(report, f"; {n} of {len(kinds)} kinds of layers are done" if kinds else "")
            results, notes = tested.results(examples, seed, case_text) if examples or case_text else ((), ())
            claims = tested.proved() if prove else ()
        verdicts.append(Verdict(tested.pattern.name, tested.kind, results, claims, notes))
        if form == "text":
            click.echo(_text(verdicts[-1], tested.title, again))
    held = [verdict for verdict in verdicts if verdict.held]
    if form == "json":
        click.echo(json.dumps([_as_dict(verdict, again) for verdict in verdicts], indent=2))
    elif kinds:
        of_layers = [sum(len(each.kind.layers) for each in some if each.kind) for some in (held, verdicts)]
        click.echo(f"{len(held)} of {len(kinds)} kinds of layers held: {of_layers[0]} of {of_layers[1]} layers")
    elif len(verdicts) > 1:
        click.echo(f"{len(held)} of {len(verdicts)} patterns held")
    ctx.exit(0 if all(verdict.held for verdict in verdicts) else 1)


def _only(kinds: tuple[LayerKind, ...], layer: int | None) -> tuple[LayerKind, ...]:
    """The kind of one layer; all if None."""
    if layer is None:
        return kinds
    found = tuple(kind for kind in kinds if layer in kind.layers)
    if not found:
        count = sum(len(kind.layers) for kind in kinds)
        raise click.BadParameter(f"expected a layer below {count}, got {layer}", param_hint="'--layer'")
    return found


@dataclass(slots=True)
class _Tested:
    """One pattern with the options that say how it is compiled; `attn`: what it is compiled to, if it is."""

    pattern: Pattern
    meaning: ResolvedPattern
    sources: InputSources
    kind: LayerKind | None
    head_dim: int
    value_dim: int
    dtype: str
    device: str | None
    target: str | None
    report: Callable[[str], None] = lambda _: None
    title: str = ""
    attn: SparseAttention | None = None

    @property
    def called(self) -> str:
        return self.pattern.name if self.kind is None else str(self.kind)

    @property
    def where(self) -> BenchCase:
        """The device and the dtype, as torch calls them. Raises CallError for no such device."""
        from sparsec.bench.baselines import make_case

        only = None if self.target is None else registry.only_device(self.target)
        return make_case(self.meaning, 1, 1, self.head_dim, self.dtype, only or self.device)

    @property
    def planned(self) -> str:
        """The target whose plan is proved, as `plan.target` names it."""
        device = self.where.device
        name = self.target or registry.best(device.type)
        assert name is not None, "torch runs on every device"
        return registry.backend(name).target_of(device)

    def compiled(self) -> SparseAttention:
        """Raises as `sparsec.compile` does."""
        return self.where.compiled(self.pattern, self.target, value_dim=self.value_dim)

    def results(self, examples: int, seed: int, case_text: str | None) -> tuple[tuple[Result, ...], tuple[str, ...]]:
        """The properties, and what their cases could not show."""
        self.report("importing torch and hypothesis")
        with extras():
            from sparsec.testing import cases, verify
        from sparsec.runtime.positions import check_positions

        meaning, name, where = self.meaning, self.called, self.where
        contents = self.sources.contents(meaning) if self.sources.given else {}
        case = None if case_text is None else cases.parse_case(case_text)
        if case is not None:
            check_positions(case.offset, case.queries, case.keys)
            integer("seed", case.seed, 0, SEED_LIMIT)
        self.report(f"compiling {name}")
        attn = self.attn or self.compiled()
        self.title = f"target {attn.target} on {where.device}"
        subject = verify.Subject.of(meaning, attn, where.device, contents)
        if case is not None:
            return (verify.run_case(subject, case),), ()
        results = verify.verify(
            subject, examples=examples, seed=seed, report=lambda text: self.report(f"{name}: {text}")
        )
        longest, most = cases.longest_term(meaning), cases.keys_for(meaning)
        notes = []
        if longest >= most:
            notes.append(
                f"cases have at most {most} keys, and a term counts to {longest}: smaller parameters show more"
            )
        if not any(result.partial or result.failure for result in results):
            notes.append("no query of any case sees a part of its keys: the set itself was hardly tested")
        return results, tuple(notes)

    def proved(self) -> tuple[Claim, ...]:
        self.report(f"proving {self.called}")
        self.title = self.title or f"the plan for {self.planned}"
        lowered = self.pattern.lowered(self.meaning.heads, self.meaning.kv_heads)
        return claims_about(
            Compilation(lowered, self.head_dim, self.value_dim, self.dtype, self.planned, self.pattern.refusals)
        )


def _command(ctx: click.Context, file: Path) -> Callable[[Verdict, Failure], str]:
    """(verdict, failure) -> the command line that runs its case again."""
    words = ["sparsec", "verify", str(file)]
    given: dict[str, Any] = ctx.params
    for key in ("heads", "kv_heads", "head_dim", "value_dim", "dtype", "device", "target"):
        if ctx.get_parameter_source(key) is click.core.ParameterSource.COMMANDLINE:
            words += ["--" + key.replace("_", "-"), str(given[key])]
    for text in given["sources"].texts:
        words += ["--inputs", text]
    for setting in given["settings"]:
        words += ["--set", setting]

    def of(verdict: Verdict) -> tuple[str, ...]:
        if verdict.kind is None:
            return "--pattern", verdict.name
        of_model = ("--layers", str(given["layers"])) if given["layers"] is not None else ()
        return "--model", given["model"], *of_model, "--layer", str(verdict.kind.layers[0])

    return lambda verdict, failure: shlex.join([*words, *of(verdict), "--case", str(failure.case)])


def _text(verdict: Verdict, title: str, again: Callable[[Verdict, Failure], str]) -> str:
    called = verdict.name if verdict.kind is None else str(verdict.kind)
    lines = [f"{called}: {title}" if title else called]
    if verdict.results:
        rows = [_row(result) for result in verdict.results]
        lines.append(table(("property", "cases", "keys up to", "time", "result"), rows))
    lines += [f"{_NAMES[r.check]} does not apply: {r.absent}" for r in verdict.results if r.absent]
    lines += [f"note: {note}" for note in verdict.notes]
    for result in verdict.results:
        if (failure := result.failure) is not None:
            lines += ["", f"{_NAMES[result.check]} failed for {failure.case.described}:", failure.message]
            lines.append(f"to run it again: {again(verdict, failure)}")
    if verdict.claims:
        lines += [*([""] if verdict.results else []), claims_text(verdict.claims)]
    return "\n".join([*lines, ""])


def _row(result: Result) -> tuple[str, ...]:
    if result.absent:
        return _NAMES[result.check], "-", "-", "-", "-"
    word = "held" if result.failure is None else "FAILED"
    return _NAMES[result.check], str(result.examples), str(result.keys), duration(result.seconds), word


def _as_dict(verdict: Verdict, again: Callable[[Verdict, Failure], str]) -> dict[str, Any]:
    return {
        "pattern": verdict.name,
        **({} if verdict.kind is None else {"layers": verdict.kind.layers}),
        "held": verdict.held,
        "properties": [_result_as_dict(verdict, result, again) for result in verdict.results],
        "claims": [
            {
                "name": claim.name,
                "about": claim.about,
                "status": claim.status,
                "seconds": claim.seconds,
                "counterexample": claim.counterexample,
            }
            for claim in verdict.claims
        ],
        "notes": list(verdict.notes),
    }


def _result_as_dict(verdict: Verdict, result: Result, again: Callable[[Verdict, Failure], str]) -> dict[str, Any]:
    failure = result.failure
    return {
        "property": result.check,
        "status": "absent" if result.absent else "held" if failure is None else "failed",
        "why": result.absent or None,
        "cases": result.examples,
        "keys_up_to": result.keys,
        "seconds": result.seconds,
        "failure": None
        if failure is None
        else {"case": str(failure.case), "message": failure.message, "command": again(verdict, failure)},
    }
