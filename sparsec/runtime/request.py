"""What to compile, and its name: a string that says all that a kernel is built from, in a graph or in a pickle.

Invariant: a name is data alone, and says nothing of a machine but its kind. It may come from anybody: what
`request_of` gives back is within the limits of the language, or it raises CallError.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from sparsec import __version__
from sparsec.analysis.cost import Geometry
from sparsec.analysis.report import Part, Report, report
from sparsec.backends import registry
from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.normalise import TooManyBands
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.kv.cached import NoCache
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.picks import Tiles
from sparsec.plan.target import family
from sparsec.plan.tiles import tiles_data, tiles_from
from sparsec.runtime.kv.stored import dtype_name
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.record import heads_data, heads_of

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
HEAD_DIM_LIMIT = 1024
"""Of keys and of values."""
DIGEST_LENGTH = 64
_FORMAT = 3
_TEXT_LIMIT = 1 << 25
"""Bytes of a name's text: some times what the largest pattern takes."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile, checked: everything but the machine."""

    lowered: Lowered
    head_dim: int
    value_dim: int
    dtype: torch.dtype
    file_layout: Callable[[], CacheLayout] | None = None
    """The layout of its KV cache, with the file's diagnostics where there is none; None where the file is not there."""
    refusals: Callable[[], AbstractContextManager[None]] = nullcontext
    """Where plans are made: what they refuse becomes the file's diagnostics."""
    tiles: Tiles = ()
    """Chosen before what a target's table and rules say."""

    @property
    def pattern(self) -> ResolvedPattern:
        return self.lowered.pattern

    def compilation(self, target: str) -> Compilation:
        """Its way down to the plans for a target name of `plan.target`; float64 is planned for as float32."""
        dtype = DTYPES.get(self.dtype, "float32")
        dims = self.head_dim, self.value_dim
        return Compilation(self.lowered, *dims, dtype, target, self.refusals, self.tiles)

    def with_tiles(self, tiles: Tiles) -> Request:
        return replace(self, tiles=tiles)

    def layout(self) -> CacheLayout:
        """The layout of its KV cache. Raises DiagnosticError, or CallError without the file, where there is none."""
        if self.file_layout is not None:
            return self.file_layout()
        try:
            return self.lowered.layout
        except (NoCache, TooManyBands) as error:
            raise CallError(f"expected a pattern that a KV cache serves, got one without: {error}") from error

    def report(self, tokens: int) -> Report:
        """What the pattern costs at a length."""
        pattern = self.pattern
        dtype = DTYPES.get(self.dtype, "float32")
        at = Geometry(pattern.heads, pattern.kv_heads, self.head_dim, self.value_dim, dtype)
        try:
            layout = self.lowered.layout
        except (NoCache, TooManyBands):
            layout = None
        return report((Part("", (0,), self.lowered, layout),), at, tokens)


def kernel_name(request: Request, target: str, artefact: str = "") -> str:
    """The name of the kernels of `request` for a target name of `plan.target`.

    `artefact`: what tells kernels that a folder holds from those that are built here, such as a digest.
    """
    data = {
        "format": _FORMAT,
        "sparsec": __version__,
        "target": target,
        "head_dim": request.head_dim,
        "value_dim": request.value_dim,
        "dtype": dtype_name(request.dtype),
        "artefact": artefact,
        "pattern": heads_data(request.pattern),
        **({"tiles": tiles_data(request.tiles)} if request.tiles else {}),
    }
    text = json.dumps(data, separators=(",", ":")).encode()
    return f"{hashlib.sha256(text).hexdigest()}{base64.b64encode(zlib.compress(text, 9)).decode()}"


def request_of(name: str) -> tuple[Request, str]:
    """The request and the target of a name that `kernel_name` gave. Raises CallError for any other string."""
    try:
        unpacked = zlib.decompressobj()
        text = unpacked.decompress(base64.b64decode(name[DIGEST_LENGTH:], validate=True), _TEXT_LIMIT)
        if hashlib.sha256(text).hexdigest() != name[:DIGEST_LENGTH]:
            raise ValueError("its digest is of another content")
        return _read(json.loads(text))
    except (ValueError, zlib.error, RecursionError) as error:
        raise CallError(f"expected the name of a kernel of sparsec, got {name!r:.40} ({error})") from error


def _read(data: Any) -> tuple[Request, str]:
    """Raises ValueError."""
    if not isinstance(data, dict):
        raise ValueError(f"expected its values by name, got {data!r:.40}")
    if data.get("format") != _FORMAT:
        other = f"{data.get('format')!r:.40} of sparsec {data.get('sparsec')!r:.40}"
        raise ValueError(f"format {_FORMAT} is read by sparsec {__version__}, and this is {other}")
    target = data.get("target")
    if not isinstance(target, str):
        raise ValueError(f"expected a target, got {target!r:.40}")
    family(target)
    wide = {"float64": torch.float64} if registry.BACKENDS[registry.backend_name(target)].float64 else {}
    head_dim, value_dim = (_dimension(data, name) for name in ("head_dim", "value_dim"))
    dtypes = {name: dtype for dtype, name in DTYPES.items()} | wide
    if data.get("dtype") not in dtypes:
        raise ValueError(f"expected dtype {', '.join(dtypes)}, got {data.get('dtype')!r:.40}")
    lowered, tiles = Lowered(heads_of(data.get("pattern"))), tiles_from(data.get("tiles", {}))
    return Request(lowered, head_dim, value_dim, dtypes[data["dtype"]], tiles=tiles), target


def _dimension(data: Mapping[str, Any], name: str) -> int:
    """Raises ValueError."""
    dim = data.get(name)
    if not isinstance(dim, int) or isinstance(dim, bool) or not 1 <= dim <= HEAD_DIM_LIMIT:
        raise ValueError(f"expected {name} from 1 to {HEAD_DIM_LIMIT}, got {dim!r:.40}")
    return dim
