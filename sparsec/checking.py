"""A text and what it imports -> its checked form and its diagnostics: what `sparsec check` and a Program do first.

Invariant: the work is bounded, whatever the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sparsec import sema
from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.codes_text import more_problems
from sparsec.diagnostics.model import Diagnostic, Severity
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.ir.bands.normalise import BAND_LIMIT, Effort, TooManyBands, TooManyBandsTogether, TooMuchEffort
from sparsec.pipeline import Lowered
from sparsec.plan.build import CLASS_LIMIT, TOGETHER_LIMIT, TooManyClasses
from sparsec.syntax.imports import NO_IMPORTS, Imports, JoinedFiles, joined_files
from sparsec.syntax.lexer import MAX_DIAGNOSTICS

CHECK_EFFORT = 10_000
CHECKED_PATTERNS, CHECKED_HEADS = 32, 128
"""How much of a file `check` lowers to count bands: enough for any file that people write, little for a hostile one."""


LoweredPatterns = dict[sema.Binding, Lowered]
"""Those of a file whose bands are known already, with the head counts of the file."""


def check(source: SourceFile, imports: Imports = NO_IMPORTS) -> tuple[sema.CheckedFile | None, tuple[Diagnostic, ...]]:
    """Every problem of a text, and the errors of what it imports; the checked file is None if one of them is broken."""
    return check_files(joined_files(source, imports.read, imports.first), source, {})


def check_files(
    files: JoinedFiles, source: SourceFile, lowered: LoweredPatterns
) -> tuple[sema.CheckedFile | None, tuple[Diagnostic, ...]]:
    """Adds to `lowered` the patterns that it had to lower. Of an imported file errors count, and no warnings."""
    if files.problems:
        places = {(problem.source.name, problem.span.start) for problem in files.problems}
        found = (
            problem
            for problem in sema.check_damaged(files.file, files.faults)
            if (problem.source.name, problem.span.start) not in places
        )
        return None, _shown(source, (*files.problems, *found))
    checked, found_here = sema.check(files.file)
    diagnostics = tuple(d for d in found_here if d.severity is Severity.ERROR or d.source.name == source.name)
    if has_error(diagnostics):
        return checked, _shown(source, diagnostics)
    return checked, (*diagnostics, *_band_problems(checked, lowered))


def _shown(source: SourceFile, found: tuple[Diagnostic, ...]) -> tuple[Diagnostic, ...]:
    """Of more errors than anybody reads the first, and at least how many more there are; the text's may say so too."""
    errors = [diagnostic for diagnostic in found if diagnostic.severity is Severity.ERROR]
    if len(errors) <= MAX_DIAGNOSTICS + 1:
        return found
    end = len(source.text)
    return (*errors[:MAX_DIAGNOSTICS], more_problems(source, Span(end, end), len(found) - MAX_DIAGNOSTICS))


def has_error(diagnostics: Iterable[Diagnostic]) -> bool:
    return any(diagnostic.severity is Severity.ERROR for diagnostic in diagnostics)


def _band_problems(checked: sema.CheckedFile, lowered: LoweredPatterns) -> Iterator[Diagnostic]:
    """The patterns with too many bands, or heads of too many kinds, of those whose heads the file gives.

    Stops when it takes too long to tell.
    """
    effort = Effort(CHECK_EFFORT)
    for name in checked.pattern_names[:CHECKED_PATTERNS]:
        binding = sema.Binding(name)
        try:
            heads = sema.declared_counts(checked, binding)[0]
            if heads is None or heads > CHECKED_HEADS:
                continue
            if (settled := sema.settled_heads(checked, binding)) is not None:
                lowered[binding] = Lowered(settled, Effort(within=effort)).within_limits()
        except TooMuchEffort:
            return
        except (TooManyBands, TooManyClasses) as error:
            yield refusal_of(checked, name, error)


def refusal_of(checked: sema.CheckedFile, name: str, error: TooManyBands | TooManyClasses) -> Diagnostic:
    source, span = checked.source, checked.patterns[name].span
    if isinstance(error, TooManyClasses):
        return codes.TOO_MANY_CLASSES.at(source, span, name=name, count=error.classes, limit=CLASS_LIMIT)
    if isinstance(error, TooManyBandsTogether):
        return codes.TOO_MANY_TOGETHER.at(source, span, name=name, limit=TOGETHER_LIMIT)
    what = "the set of one head" if error.group is None else f"what the heads of KV group {error.group} see together"
    return codes.TOO_MANY_BANDS.at(source, span, what=what, limit=BAND_LIMIT)
