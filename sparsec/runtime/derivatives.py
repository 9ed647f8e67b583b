"""What autograd and `torch.func` see of the operators: their gradients, and how `vmap` batches them.

Invariant: gradients are the same numbers under any nesting of `grad`, `vjp`, `jacrev` and `vmap`; a second derivative
is an error, and so is one in forward mode (`runtime.tangents`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from sparsec.diagnostics.model import SparsecError
from sparsec.runtime.ops import backward, forward, forward_now, gradients_now, mass
from sparsec.runtime.tangents import library

__all__ = ["call_forward", "mass"]


_PLAIN = frozenset((Tensor, torch.nn.Parameter, type(None)))


def observed(*tensors: Tensor | None) -> bool:
    """Whether somebody would see an operator that is called on these: a compiler, a transform, a mode, a profiler."""
    return (
        torch.compiler.is_compiling()
        or is_in_torch_dispatch_mode()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._autograd._profiler_enabled()
        or torch._C._get_tracing_state() is not None
        or not _PLAIN.issuperset(map(type, tensors))
    )


def call_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    cu_seqlens: Tensor | None,
    inputs: list[Tensor] | None,
    key_bias: Tensor | None,
    kernel: str,
    q_offset: int,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """What the operator `forward` does; where nobody would see that one, its dispatch, longer than all else that the
    host does, is left out."""
    given = q, k, v, sink, cu_seqlens, inputs, key_bias, kernel, q_offset, scale
    if observed(q, k, v, sink, cu_seqlens, key_bias, *(inputs or ())):
        found: tuple[Tensor, Tensor] = forward(*given)
        return found
    asked = q.requires_grad or k.requires_grad or v.requires_grad
    asked = asked or (sink is not None and sink.requires_grad) or (key_bias is not None and key_bias.requires_grad)
    if asked and torch.is_grad_enabled():
        return _Unseen.apply(*given[:4], key_bias, given)  # type: ignore[attr-defined, no-any-return]  # torch's C code has it
    return forward_now(*given)


def _keep(ctx: Any, given: tuple[Any, ...], found: tuple[Tensor, Tensor]) -> None:
    """What the backward pass of a call takes; what few calls have is left out where it is not there."""
    q, k, v, sink, cu_seqlens, of_inputs, key_bias, *ctx.call = given
    plain = sink is None and cu_seqlens is None and key_bias is None and not of_inputs
    beside = () if plain else (sink, cu_seqlens, key_bias, *(of_inputs or ()))
    ctx.save_for_backward(q, k, v, *found, *beside)
    ctx.set_materialize_grads(False)


_NOTHING = None, None, None


def _gradients(
    ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, bias_place: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Those of q, k, v, of a sink where there is one, and of the key bias, in that place of what has been given, if it
    is asked for."""
    saved = ctx.saved_tensors
    q, k, v, out, lse, *beside = saved
    sink, cu_seqlens, key_bias, *of_inputs = beside or _NOTHING
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    seen = torch.is_grad_enabled() or observed(grad_out, grad_lse, *saved)
    of_bias = key_bias is not None and ctx.needs_input_grad[bias_place]
    given = q, k, v, out, lse, sink, cu_seqlens, of_inputs or None, key_bias, of_bias, *ctx.call
    dq, dk, dv, dsink, dbias = (backward if seen else gradients_now)(grad_out, grad_lse, *given)
    return dq, dk, dv, None if sink is None else dsink, dbias if of_bias else None


class _Unseen(_SingleLevelFunction):
    """A call of `call_forward` that is no operator's, in fewer steps of torch's: `given` is all of it."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, key_bias: Tensor | None, given: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        found = forward_now(*given)
        _keep(ctx, given, found)
        return found

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        return *_gradients(ctx, grad_out, grad_lse, 4), None


class _Forward(_SingleLevelFunction):
    @staticmethod
    def forward(keyset: torch._C.DispatchKeySet, *inputs: Any) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = _below(forward.default, keyset, inputs)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _keep(ctx, inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        dq, dk, dv, dsink, dbias = _gradients(ctx, grad_out, grad_lse, 7)
        return None, dq, dk, dv, dsink, None, None, dbias, None, None, None


class _Backward(_SingleLevelFunction):
    @staticmethod
    def forward(keyset: torch._C.DispatchKeySet, *inputs: Any) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = _below(backward.default, keyset, inputs)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """There is nothing to keep; torch asks for the method where a transform of `torch.func` is active."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        raise SparsecError("expected a first derivative, got a second one: attention's backward pass has no gradient")


def _below(operator: Any, keyset: torch._C.DispatchKeySet, inputs: tuple[Any, ...]) -> Any:
    """The operator past autograd: itself, or the next transform of `torch.func`, which records in its turn."""
    with torch._C._AutoDispatchBelowAutograd():
        if not torch._C._are_functorch_transforms_active():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *inputs)
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):  # which a Function's forward has turned off
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *inputs)


def _differentiable(operator: Any, function: type[_SingleLevelFunction]) -> Callable[..., Any]:
    """The operator's kernel at the Autograd key.

    A `Function` asks for rules of its own where transforms of `torch.func` are active. Here the dispatcher has peeled
    off the outer ones already, and this level alone is recorded, as an operator of torch's own records it.
    """

    def recorded(keyset: torch._C.DispatchKeySet, *inputs: Any) -> Any:
        if not (torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs)):
            return _below(operator, keyset, inputs)
        if not torch._C._are_functorch_transforms_active():
            return function.apply(keyset, *inputs)  # type: ignore[attr-defined]  # torch's C code has it
        with enable_single_level_autograd_function():
            return function.apply(keyset, *inputs)  # type: ignore[attr-defined]

    return recorded


def _constant(keyset: torch._C.DispatchKeySet, *inputs: Any) -> Tensor:
    """A mass has no gradient."""
    found: Tensor = _below(mass.default, keyset, inputs)
    return found


library.impl("forward", _differentiable(forward.default, _Forward), "Autograd", with_keyset=True)
library.impl("backward", _differentiable(backward.default, _Backward), "Autograd", with_keyset=True)
library.impl("mass", _constant, "Autograd", with_keyset=True)


_Rule = Callable[..., tuple[tuple[Tensor, ...], tuple[int | None, ...]]]


def _batching(operator: Any, batched: int, *, sums: bool) -> _Rule:
    """The rule of `vmap`: samples are more sequences of the batch; where they cannot be, each has a call of its own.

    The first `batched` arguments have a batch of sequences, the next two, sink and cu_seqlens, have none; what follows,
    the tensors of inputs, may have one. `sums`: the operator sums over the batch what it gives for a sink.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        samples, mapped = info.batch_size, [dim is not None for dim in in_dims]
        inputs: list[Tensor] = arguments[batched + 2] or []
        dims_of: Any = in_dims[batched + 2] or [None] * len(inputs)
        moved = [t.movedim(dim, 0) if isinstance(dim, int) else t for t, dim in zip(arguments, in_dims, strict=True)]
        sink, cu_seqlens = moved[batched : batched + 2]
        if inputs or cu_seqlens is not None or (sink is not None and (sums or mapped[batched])):

            def sample(n: int) -> list[Any]:
                own = [t[n] if isinstance(dim, int) else t for t, dim in zip(moved, in_dims, strict=True)]
                of_inputs = [t if dim is None else t.select(dim, n) for t, dim in zip(inputs, dims_of, strict=True)]
                own[batched + 2] = of_inputs or None
                return own

            calls = [operator(*sample(n)) for n in range(samples)]
            return tuple(torch.stack(parts) for parts in zip(*calls, strict=True)), (0,) * len(calls[0])
        folded = [
            t if t is None else (t if own else t.expand(samples, *t.shape)).flatten(0, 1)
            for t, own in zip(moved[:batched], mapped, strict=False)
        ]
        found = operator(*folded, *moved[batched:])
        # The gradient of a sink that is not there has no batch.
        outputs = tuple(t.unflatten(0, (samples, len(t) // samples)) if t.dim() > 1 else t for t in found)
        return outputs, tuple(0 if t.dim() > 1 else None for t in found)

    return rule


torch.library.register_vmap("sparsec::forward", _batching(forward, 3, sums=False))
torch.library.register_vmap("sparsec::backward", _batching(backward, 7, sums=True))


def _batched_mass(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int | None]:
    rule = _batching(lambda *given: (mass(*given),), 3, sums=False)
    (found,), (dim,) = rule(info, in_dims, *arguments)
    return found, dim


torch.library.register_vmap("sparsec::mass", _batched_mass)
