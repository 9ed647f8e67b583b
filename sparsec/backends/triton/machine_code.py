"""What Triton's compiler made for a GPU -> its files, the text of its instructions, and the registers that they take.

Invariant: nothing here asks for a driver or a device.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton

from sparsec.diagnostics.model import SparsecError


class AheadOfTimeError(SparsecError):
    """Triton or its assembler refused a kernel."""


MachineCode = tuple[tuple[tuple[str, bytes], ...], str, dict[str, int]]
"""(ending, content) of each file; the instructions; registers, spills and stack, in bytes a thread but the first."""


def nvidia_code(built: Any) -> MachineCode:
    cubin: bytes = built.asm["cubin"]
    listing, report = instructions(cubin), _of_file("cuobjdump", "--dump-resource-usage", cubin)
    usage = {"registers": _number(r"REG:(\d+)", report), "stack": _number(r"STACK:(\d+)", report)}
    # The cubin tells of spills as local memory traffic alone; each STL or LDL moves 4 to 16 bytes a thread.
    usage["spills"] = _number(r"LOCAL:(\d+)", report) + 4 * len(re.findall(r"\bSTL(?:\.\d+)?\b", listing))
    return (("ptx", built.asm["ptx"].encode()), ("cubin", cubin)), listing, usage


def instructions(cubin: bytes) -> str:
    return _of_file("nvdisasm", "-c", cubin)


def amd_code(built: Any) -> MachineCode:
    text: str = built.asm["amdgcn"]
    stack = _number(r"\.private_segment_fixed_size:\s*(\d+)", text)
    # Scalar registers spill into lanes of vector registers, and these into accumulators, without memory traffic.
    spills = min(4 * _number(r"\.vgpr_spill_count:\s*(\d+)", text), stack)
    usage = {"registers": _number(r"\.vgpr_count:\s*(\d+)", text), "spills": spills, "stack": stack}
    return (("amdgcn", text.encode()), ("hsaco", built.asm["hsaco"])), text, usage


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise AheadOfTimeError(f"the compiler's report lacks {pattern}")
    return int(found[1])


def _of_file(name: str, option: str, content: bytes) -> str:
    """What one of the programs that Triton's package brings along says of a file."""
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(content)
        run = subprocess.run([str(program), option, str(path)], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise AheadOfTimeError(f"{name} failed: {run.stderr.strip()}")
    return run.stdout
