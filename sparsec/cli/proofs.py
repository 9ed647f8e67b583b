"""A pattern and how it is compiled -> its claims, decided by z3, and what the command line says of them.

Invariant: a package that an extra installs is imported in `extras` alone, so that its absence is a plain message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sparsec.diagnostics.model import CallError
from sparsec.diagnostics.tables import duration, table
from sparsec.pipeline import Compilation

if TYPE_CHECKING:
    from sparsec.prove import Claim

CLAIM_SECONDS = 20.0
_EXTRAS = {"hypothesis": "testing", "z3": "prove"}


@contextmanager
def extras() -> Iterator[None]:
    """Raises CallError where a package of an extra is imported within and is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        wanted = f"pip install 'sparsec[{_EXTRAS[package]}]'"
        raise CallError(f"expected the package {package}, which is not installed: {wanted}") from error


def check_prover() -> None:
    """Raises CallError where z3 is missing."""
    with extras():
        import sparsec.prove  # noqa: F401  # that it can be imported is all


def claims_about(compilation: Compilation, *, gradients: bool = True) -> tuple[Claim, ...]:
    """The claims about the plans, those about the gradients' kernels only if there are any."""
    with extras():
        from sparsec.prove import prove_compilation

        return prove_compilation(compilation, gradients=gradients, timeout_s=CLAIM_SECONDS)


def claims_text(claims: tuple[Claim, ...]) -> str:
    """A table of them, and the counterexample of each that is refuted."""
    rows = [(claim.about, claim.name, duration(claim.seconds), claim.status) for claim in claims]
    lines = [table(("about", "claim", "time", "result"), rows)]
    for claim in claims:
        if claim.status == "refuted":
            values = ", ".join(f"{name} = {value}" for name, value in (claim.counterexample or {}).items())
            lines += ["", f"{claim.name} ({claim.about}) is refuted at {values}", *claim.inputs, claim.picture]
    return "\n".join(lines)
