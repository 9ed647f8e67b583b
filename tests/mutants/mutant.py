"""Mutation operators as data: a text of one file that occurs there once -> a text that makes the compiler wrong.

The tests that ought to notice are those of the operator's part: property tests, numerics against float64 and unit
tests of behaviour. Golden files and comparisons of generated text are left out, since any change kills those.
Invariant: an operator changes what is computed, or says in `equivalent` why it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

INTERPRETED = {"TRITON_INTERPRET": "1"}

BIASED = tuple(
    f"tests/numerics/test_key_bias.py::{test}"
    for test in ("test_documents", "test_outputs_and_gradients", "test_a_cache_remembers_the_weights")
)
PARTS: dict[str, tuple[str, ...]] = {
    "lowering": (
        "tests/unit/ir",
        "tests/property/test_tiles.py",
        "tests/property/test_gradients.py::test_torch",
    ),
    "limits of tiles": ("tests/unit/ir/test_limits_of_tiles.py",),
    "cache layout": (
        "tests/unit/runtime/test_kv_cache.py::test_keys_before_all_that_is_asked_for_take_no_slot",
        "tests/property/test_cache_layout.py",
        "tests/property/test_cache_machine.py::test_torch",
        "tests/numerics/test_cpu_cached.py",
    ),
    "dead pages": ("tests/property/test_dead_pages.py",),
    "cache": ("tests/unit/runtime/test_kv_cache.py", "tests/property/test_cache_machine.py::test_torch"),
    "rows of a cache": ("tests/unit/runtime/test_join_and_leave.py", "tests/unit/runtime/test_cache_growth.py"),
    "kept keys": ("tests/unit/runtime/test_keep.py", "tests/property/test_kept_machine.py"),
    "merged keys": ("tests/unit/runtime/test_merge.py", "tests/property/test_kept_machine.py"),
    "C++ forward": ("tests/numerics/test_cpu_kernel.py",),
    "C++ pairs": ("tests/numerics/test_micro_kernels.py",),
    "C++ pairs of rows": ("tests/numerics/test_row_operands.py",),
    "C++ matrices": ("tests/numerics/test_matrix_tiles.py",),
    "C++ calls": ("tests/unit/backends/test_checked_calls.py",),
    "C++ schedule": ("tests/unit/bench/test_cores.py",),
    "C++ scores": ("tests/numerics/test_cpu_score.py",),
    "C++ documents": ("tests/numerics/test_cpu_documents.py",),
    "C++ backward": ("tests/numerics/test_cpu_backward.py",),
    "C++ cached": ("tests/numerics/test_cpu_cached.py",),
    "C++ narrow caches": ("tests/numerics/test_kv_dtype.py",),
    "C++ pages": ("tests/numerics/test_paged.py", "tests/numerics/test_paged_inputs.py"),
    "C++ guarded pages": ("tests/guards/test_guards.py::test_cpu_kernels_over_pages_keep_off_guard_pages",),
    "C++ inputs": tuple(f"tests/numerics/test_inputs{of}.py" for of in ("_cached", "", "_score")),
    "C++ mass": (
        "tests/numerics/test_inputs_score.py::test_masses_of_any_scores_strides_and_threads",
        "tests/numerics/test_mass.py",
    ),
    "C++ cached mass": ("tests/numerics/test_cached_mass.py",),
    "C++ bias": BIASED,
    "C++ guarded": ("tests/guards/test_guards.py::test_cpu_kernels_keep_off_guard_pages",),
    "C++ guarded narrow": ("tests/guards/test_guards.py::test_cpu_kernels_over_int8_keep_off_guard_pages",),
    "Triton forward": ("tests/numerics/test_triton_kernel.py",),
    "Triton scores": ("tests/numerics/test_triton_score.py",),
    "Triton documents": ("tests/numerics/test_triton_documents.py",),
    "Triton backward": ("tests/numerics/test_triton_backward.py",),
    "Triton parts": ("tests/numerics/test_triton_splits.py",),
    "Triton cached": ("tests/numerics/test_triton_cached.py",),
    "Triton pages": ("tests/numerics/test_triton_paged.py", "tests/numerics/test_triton_paged_inputs.py"),
    "Triton bias": BIASED,
    "Triton exact": ("tests/numerics/test_triton_functions.py",),
    "Triton inputs": ("tests/numerics/test_triton_inputs.py",),
    "Triton cached mass": ("tests/numerics/test_triton_cached_mass.py",),
    "Triton cached inputs": ("tests/numerics/test_triton_inputs_cached.py",),
    "Triton kept": ("tests/numerics/test_triton_kept.py",),
}
"""What pytest is given for an operator of each part; it stops at the first failure."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Replaces `before` by `after` in `file` (a path from the repository's root)."""

    name: str
    part: str
    file: str
    before: str
    after: str
    equivalent: str = ""
    """Why nothing that is computed changes; empty for an operator that some test has to kill."""

    def applied(self, root: Path) -> str:
        """The file's text, mutated. Raises ValueError unless `before` occurs exactly once."""
        text = (root / self.file).read_text(encoding="utf-8")
        if (found := text.count(self.before)) != 1 or self.before == self.after:
            raise ValueError(f"{self.name}: expected {self.before!r} once in {self.file}, got it {found} times")
        return text.replace(self.before, self.after)

    @property
    def environment(self) -> dict[str, str]:
        return INTERPRETED if self.part.startswith("Triton") else {}
