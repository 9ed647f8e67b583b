"""`SparseAttention`: a compiled pattern as a torch module. It checks a call, and hands it to the kernel's operator."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from sparsec.analysis.report import Report
from sparsec.backends import registry
from sparsec.backends.base import OracleKernel
from sparsec.diagnostics.arguments import instance, integer
from sparsec.diagnostics.model import CallError
from sparsec.pipeline import Lowered
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.kv.layout import CacheLayout
from sparsec.runtime.call_tensors import CallTensors, check_documents, counts_of
from sparsec.runtime.derivatives import call_forward, mass
from sparsec.runtime.devices import device_of
from sparsec.runtime.inputs.checks import InputTensors, LastFit, flat_inputs
from sparsec.runtime.inputs.prepare import bias_apart
from sparsec.runtime.kernel import registered
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.fresh import fresh_cache
from sparsec.runtime.kv.mass import Asked, room_for_mass
from sparsec.runtime.kv.ops import attend_cached, attend_now, refuse_derivatives
from sparsec.runtime.notebook import module_html
from sparsec.runtime.paged import attention
from sparsec.runtime.positions import check_positions, position
from sparsec.runtime.request import Request, request_of
from sparsec.runtime.shard import of_rank, on_ranks
from sparsec.sema.model import InputDecl, Score
from sparsec.sema.record import inputs_data, inputs_of
from sparsec.sema.shapes import Sizes

_Given = tuple[Mapping[str, InputTensors] | None, bool]  # tensors of inputs, and whether their numbers are checked


class SparseAttention(nn.Module):
    """Attention with a compiled pattern; made by `sparsec.compile`, from the name of a kernel or the reference.

    It can be copied, pickled and exported: what it takes along is its parameters and that name, a description of the
    pattern. Another process builds the kernels from it at the first call, or finds them in its build cache. It imports
    `sparsec.nn` before it loads an exported program, to know the operators.

    Attributes: `heads`, `kv_heads`, `head_dim`, `value_dim`, `dtype`, `target` ("cpu", "triton", "gluon", "torch"
    or "reference"), `scale` (None: 1/sqrt(head_dim)), `source` (the generated source; empty for "torch" and
    "reference") and `plan` (None for "reference"; without tile programs in a module that `sparsec.load_compiled` gives
    back), `documents` (whether a call needs cu_seqlens), `layout` (the cache's, for causal patterns) and, for a pattern
    with `learned_sink`, the parameter `sink` ([heads], natural-log logits, zero at first).
    """

    def __init__(
        self,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        value_dim: int,
        dtype: torch.dtype,
        target: str,
        score: Score,
        kernel: str | OracleKernel,
        documents: bool = False,
        inputs: tuple[InputDecl, ...] = (),
        device: torch.device | None = None,
        request: Request | None = None,
    ) -> None:
        super().__init__()
        self.sink = nn.Parameter(torch.zeros(heads)) if score.learned else None
        self.heads, self.kv_heads, self.dtype = heads, kv_heads, dtype
        self.head_dim, self.value_dim, self.documents, self.inputs = head_dim, value_dim, documents, inputs
        self.target, self.scale, self._kernel, self._bias = target, score.scale, kernel, score.bias
        self._request, self._device = request, device or torch.device("cpu")
        self._tensors, self._last_fit = self._made_for(), LastFit()

    def _made_for(self) -> CallTensors:
        dims = self.heads, self.kv_heads, self.head_dim, self.value_dim
        return CallTensors(*dims, self.dtype, self.target, registry.only_device(self.target) == "cpu")

    @property
    def kernel_digest(self) -> str:
        """What names the module's kernels in this process: the same for equal kernels; "reference" has none."""
        assert isinstance(self._kernel, str)
        return self._kernel

    @overload
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int | None = None,
        return_lse: Literal[False] = False,
        return_mass: Literal[False] = False,
        cu_seqlens: Tensor | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        inputs: Mapping[str, InputTensors] | None = None,
        check_inputs: bool = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int | None = None,
        return_lse: Literal[True],
        return_mass: Literal[False] = False,
        cu_seqlens: Tensor | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        inputs: Mapping[str, InputTensors] | None = None,
        check_inputs: bool = False,
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int | None = None,
        return_lse: Literal[False] = False,
        return_mass: Literal[True] | Sequence[int],
        cu_seqlens: Tensor | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        inputs: Mapping[str, InputTensors] | None = None,
        check_inputs: bool = False,
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int | None = None,
        return_lse: Literal[True],
        return_mass: Literal[True] | Sequence[int],
        cu_seqlens: Tensor | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        inputs: Mapping[str, InputTensors] | None = None,
        check_inputs: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]: ...

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int | None = None,
        return_lse: bool = False,
        return_mass: Asked = False,
        cu_seqlens: Tensor | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        inputs: Mapping[str, InputTensors] | None = None,
        check_inputs: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Attends.

        q: [B, heads, Nq, head_dim]; k: [B, kv_heads, Nk, head_dim]; v: [B, kv_heads, Nk, value_dim]; all of `dtype`, on
        one device, any strides. Under autocast they are cast to `dtype`.
        q_offset: absolute position of the first query; Nk - Nq if left out (the last query sees the last key).
        cu_seqlens: int32 [documents + 1], from 0 to Nk without a decrease, for patterns with `documents` alone; B is
        then 1, and the sequences are packed end to end (Nq = Nk).
        cache: of `new_cache`; q, k and v are then N >= 1 tokens that follow those in it (Nq = Nk = N), the queries see
        both, and the cache keeps the new ones. Without gradients.
        lengths: with a cache, how many of the N tokens each sequence has, integers [B]; they are its last ones, and the
        rows before them are padding, whose output is 0 (None: N each). A released sequence has none. Numbers on q's
        device are read there and nowhere else: those outside 0..N count as the nearest of them, and until
        `cache.lengths` is read the host takes them for N each, for which there must be room.
        A CUDA graph may capture a call after a first one like it. Each replay reads q, k, v, cu_seqlens and lengths
        where they lie then, and the cache as it is then, which `cache.refresh` tells the host of; q_offset, shapes and
        whether there are lengths are those of the capture, and lengths must be on q's device. A replay that gives a
        sequence more than `max_len` tokens is the caller's to avoid.
        inputs: of each input that the pattern declares its tensor, or its pair of tensors, by name, on q's device;
        shapes and dtypes are those of `sema.model.InputKind`. With a cache, what speaks of queries is given for the N
        queries, what speaks of keys for the N keys. Their numbers are not read on the host.
        check_inputs: whether the numbers are read and checked: no list names an entry twice, counts lie within their
        lists, a parent comes before its child, lengths are not negative, weights are not NaN. It waits for the device.
        Returns out, [B, heads, Nq, value_dim]; with `return_lse` then the natural-log LSE, float32 [B, heads, Nq]; with
        `return_mass` then the mass of keys, float32 [B, heads, Nk]: each key's attention probabilities, added up over
        the call's queries. It has no gradient. With a cache Nk is the tokens of the longest sequence after the call: a
        key stands at its position whether it is held or not, and `return_mass` may list the KV groups whose heads get
        a mass, in place of True; the others have 0. A query that may attend to nothing has
        output 0 and LSE -inf (the sink, where there is one); a key that no query sees has mass 0. Raises CallError.
        """
        if not self._tensors.fit(q, k, v):
            q, k, v = self._tensors.fitted(q, k, v)
        if cache is not None:
            if q_offset is not None or cu_seqlens is not None:
                raise CallError("expected neither q_offset nor cu_seqlens with a cache, got one")
            return self._attend_cached(q, k, v, cache, lengths, (inputs, check_inputs), return_lse, return_mass)
        if not isinstance(return_mass, bool):
            raise CallError(f"expected return_mass True or False without a cache, got {return_mass}")
        if lengths is not None:
            raise CallError("expected lengths with a cache alone, got them without one")
        if self.documents or cu_seqlens is not None:
            check_documents(q, k, q_offset, cu_seqlens, wanted=self.documents)
        n_queries, n_keys = q.shape[2], k.shape[2]
        offset = n_keys - n_queries if q_offset is None else position("q_offset", q_offset)
        check_positions(offset, n_queries, n_keys)
        sink = None if self.sink is None else self.sink.float()
        flat = self._input_tensors(q, k, (inputs, check_inputs), n_keys, offset)
        if not isinstance(self._kernel, str):  # plain differentiable torch, with no operator between
            out, lse = self._kernel.with_inputs(flat).forward(
                q, k, v, q_offset=offset, scale=self.scale, lists=(), sink=sink, cu_seqlens=cu_seqlens
            )
        else:
            given = bias_apart(self._bias, self.inputs, flat)
            out, lse = call_forward(q, k, v, sink, cu_seqlens, *given, self._kernel, offset, self.scale)
        asked: tuple[Tensor, ...] = (lse,) if return_lse else ()
        if return_mass:
            asked = (*asked, self._mass(q, k, lse, sink, cu_seqlens, flat, offset))
        return (out, *asked) if asked else out

    def _mass(
        self, q: Tensor, k: Tensor, lse: Tensor, sink: Tensor | None, packed: Tensor | None, flat: list[Tensor], at: int
    ) -> Tensor:
        q, k, lse, sink = q.detach(), k.detach(), lse.detach(), None if sink is None else sink.detach()
        if isinstance(self._kernel, str):
            given = bias_apart(self._bias, self.inputs, [each.detach() for each in flat])
            return mass(q, k, lse, sink, packed, *given, self._kernel, at, self.scale)  # type: ignore[no-any-return]  # an operator
        return self._kernel.with_inputs(flat).mass(q, k, q_offset=at, scale=self.scale, sink=sink, cu_seqlens=packed)

    @property
    def plan(self) -> KernelPlan | None:
        return registered(self._kernel, self._device).plan if isinstance(self._kernel, str) else None

    @property
    def source(self) -> str:
        return registered(self._kernel, self._device).source if isinstance(self._kernel, str) else ""

    @cached_property
    def layout(self) -> CacheLayout:
        """Which keys a cache keeps, and where.

        Raises DiagnosticError for a pattern that no cache serves, CallError for a module without one.
        """
        if not isinstance(self._kernel, str):
            raise CallError(f"expected a target with a cache, got {self.target!r}")
        return self._described().layout()

    def explain(self, seq_len: int) -> Report:
        """What the pattern costs for `seq_len` queries on as many keys, and what its KV cache holds, against dense."""
        return self._described().report(integer("seq_len", seq_len, 1))

    @property
    def lowered(self) -> Lowered:
        """What follows from its pattern, on the way down to kernels."""
        return self._described().lowered

    paged, append_paged, dead_pages = attention.over_pages, attention.into_pages, attention.freed_pages
    shard, parallel = of_rank, on_ranks
    _repr_html_ = module_html

    def _described(self) -> Request:
        """What it was made for; a module that has travelled reads it off its kernel."""
        if self._request is None:
            if isinstance(self._kernel, str):
                self._request = request_of(self._kernel)[0]
            else:
                self._request = Request(Lowered(self._kernel.pattern), self.head_dim, self.value_dim, self.dtype)
        return self._request

    def __getstate__(self) -> dict[str, Any]:
        own = ("_request", "layout", "_tensors", "_last_fit")
        kept = {name: value for name, value in self.__dict__.items() if name not in own}
        return {**kept, "inputs": inputs_data(self.inputs)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = {"_request": None, **state, "inputs": inputs_of(state["inputs"])}
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._tensors, self._last_fit = self._made_for(), LastFit()

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseAttention:
        copied = self.__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        copied._request = self._request  # with the file's diagnostics
        return copied

    def new_cache(
        self,
        batch_size: int = 1,
        max_len: int | None = None,
        *,
        rollback: int = 0,
        device: torch.device | str | None = None,
        kv_dtype: torch.dtype | str | None = None,
    ) -> KVCache:
        """An empty cache for `batch_size` sequences of up to `max_len` tokens, with room for what they may need alone.

        max_len: None for a cache that grows: a call for which its room is too little doubles it, or more if it has to.
        A CUDA graph captures no growth, and torch.compile sees none: `KVCache.grow` makes room before. rollback: how
        many of the latest tokens `KVCache.truncate` can always take back. device: the module's, if left out. kv_dtype:
        what keys and values are stored as, and taken as by every call, its own ones too: None for the module's dtype,
        else "int8" or, of a float32 module, "bfloat16" or "float16" (`runtime.kv.stored` has the rule and its error).
        Warns where the pattern makes a cache keep keys for want of a closed form. Raises as `layout` does, and for a
        kv_dtype that the target's kernels do not take.
        """
        layout, where = self.layout, self._device if device is None else device_of(device)
        assert isinstance(self._kernel, str), "what has a layout has a kernel"
        return fresh_cache(
            *(self, self._kernel, layout, where),
            batch_size=batch_size,
            max_len=max_len,
            rollback=rollback,
            kv_dtype=kv_dtype,
        )

    def _attend_cached(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cache: KVCache,
        lengths: Tensor | Sequence[int] | None,
        inputs: _Given,
        return_lse: bool,
        return_mass: Asked,
    ) -> Tensor | tuple[Tensor, ...]:
        new = q.shape[2]
        instance("cache", cache, KVCache).check_call(self._kernel, q, k)
        counts = None if lengths is None else counts_of(lengths, cache.batch_size, q.device)
        sink = None if self.sink is None else self.sink.detach().float()
        total = cache.length + new if self.inputs and inputs[1] else None
        flat = self._input_tensors(q, k, inputs, total, None) or None
        refuse_derivatives(q, k, v, self.sink, flat or ())
        assert isinstance(self._kernel, str)
        mass = None
        if return_mass is not False:
            mass = room_for_mass(return_mass, cache, self.heads, self.kv_heads, new, counts)
        if not torch.compiler.is_compiling() and not is_in_torch_dispatch_mode() and type(q) is Tensor:
            batched = torch._C._functorch.is_batchedtensor
            if torch._C._are_functorch_transforms_active() and any(map(batched, (q, k, v))):
                raise CallError("expected no vmap over a call with a cache, got one; a cache has its own batch_size")
            # Nobody watches operators; on a CPU, dispatch would take as long as a third of a step's kernel.
            cache.make_room(new, counts)
            loaded, now = registered(self._kernel, q.device), cache.seen(counts, mass)
            out, lse = attend_now(loaded, q, k, v, sink, now, cache.lists, flat, self.scale, checked=True)
        else:
            held = cache.keys, cache.values, cache.lengths_tensor, cache.state, counts, cache.places, cache.lists
            kept = [] if cache.kept is None else list(cache.kept.tensors.values())
            of_mass = (None, None) if mass is None else (mass.sums, mass.groups)
            out, lse = attend_cached(
                *(q, k, v, sink, *held, list(cache.marks), kept, flat),
                *(cache.max_len, self._kernel, self.scale, *of_mass, cache.live),
            )
        if mass is None:
            return (out, lse) if return_lse else out
        return (out, lse, mass.sums) if return_lse else (out, mass.sums)

    def _input_tensors(
        self, q: Tensor, k: Tensor, inputs: _Given, n_keys: int | None, offset: int | None
    ) -> list[Tensor]:
        """All in order. Raises CallError."""
        given, values = inputs
        if not self.inputs and given is None:
            return []
        sizes = Sizes(q.shape[0], self.heads, self.kv_heads, q.shape[2], k.shape[2], n_keys, offset)
        if values:
            return flat_inputs(self.inputs, given, sizes, q, block=self._described().pattern.block)
        if torch.compiler.is_compiling():
            return flat_inputs(self.inputs, given, sizes, q)
        return self._last_fit.flat(self.inputs, given, sizes, q)

    def extra_repr(self) -> str:
        names = ("heads", "kv_heads", "head_dim", "value_dim", "dtype", "target")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
