"""Instruction sets: those that a compiler may use for its flags, and those that this machine's processors have.

Invariant: a set has the name that Linux gives it in /proc/cpuinfo; a library is loaded only where none is missing, for
an unknown instruction ends the process.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sparsec.diagnostics.model import CallError

_CPUINFO = Path("/proc/cpuinfo")
_TIMEOUT_SECONDS = 60
_PLAIN = ("ssse3", "sse4_1", "sse4_2", "sse4a", "popcnt", "movbe", "avx", "avx2", "fma", "f16c", "bmi2", "fma4", "xop")
_AVX512 = ("f", "cd", "bw", "dq", "vl", "ifma", "vbmi")
_LATER_AVX512 = ("vbmi2", "vnni", "bitalg", "vpopcntdq", "bf16", "fp16")
_LATE = ("avx512_bf16", "avx512_fp16")
"""Processors have had these before all systems in use came to name them."""
_SETS: Mapping[str, str] = {
    **{f"__{name.upper()}__": name for name in (*_PLAIN, "tbm", "gfni")},
    **{f"__AVX512{name.upper()}__": f"avx512{name}" for name in _AVX512},
    **{f"__AVX512{name.upper()}__": f"avx512_{name}" for name in _LATER_AVX512},
    **{f"__AMX_{name.upper()}__": f"amx_{name}" for name in ("tile", "bf16")},
    "__SSE3__": "pni",
    "__BMI__": "bmi1",
    "__LZCNT__": "abm",
    "__ARM_FEATURE_SVE": "sve",
    "__ARM_FEATURE_SVE2": "sve2",
    "__ARM_FEATURE_ATOMICS": "atomics",
    "__ARM_FEATURE_DOTPROD": "asimddp",
    "__ARM_FEATURE_FP16_VECTOR_ARITHMETIC": "asimdhp",
    "__ARM_FEATURE_FP16_SCALAR_ARITHMETIC": "fphp",
    "__ARM_FEATURE_FP16_FML": "asimdfhm",
    "__ARM_FEATURE_BF16_VECTOR_ARITHMETIC": "bf16",
    "__ARM_FEATURE_MATMUL_INT8": "i8mm",
    "__ARM_FEATURE_QRDMX": "asimdrdm",
    "__ARM_FEATURE_COMPLEX": "fcma",
}
"""The compiler's macro of each set that it may use unasked, and of those that kernels ask for where they are."""


@dataclass(frozen=True, slots=True)
class Processor:
    """What a library needs: the machine's name as of `platform.machine`, and instruction sets."""

    machine: str
    instructions: tuple[str, ...]


@cache
def used_by(command: tuple[str, ...], flag: str) -> Processor:
    """What a compiler builds for with `flag`, such as -march=native; all that this machine has if it does not say."""
    arguments = [*command, flag, "-dM", "-E", "-x", "c++", "/dev/null"]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
        said = done.stdout if done.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    macros = {words[1] for line in said.splitlines() if (words := line.split())[:1] == ["#define"]}
    have = available()
    if not macros:
        return Processor(platform.machine(), tuple(sorted(have or ())))
    sets = {name for macro, name in _SETS.items() if macro in macros}
    unnamed = set(_LATE) - have if have is not None else set()
    return Processor(platform.machine(), tuple(sorted(sets - unnamed)))


@cache
def available() -> frozenset[str] | None:
    """The sets that every processor of this machine has; None where it does not say."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    each = [frozenset(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))]
    return frozenset.intersection(*each) if each else None


def check_processor(machine: str, instructions: Iterable[str]) -> None:
    """Raises CallError unless this machine runs a library that was built for a Processor of these."""
    if machine != platform.machine():
        raise CallError(f"expected kernels for this machine, {platform.machine()}, got those of {machine}")
    have = available()
    missing = sorted(set(instructions) - have) if have is not None else []
    if missing:
        raise CallError(
            f"expected a processor with {', '.join(missing)}, which the kernels were built for, got one without; "
            "sparsec compile --target cpu:x86-64-v3 builds them for any x86-64 processor with AVX2"
        )
