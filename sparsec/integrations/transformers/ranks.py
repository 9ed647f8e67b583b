"""A model's call on a whole sequence -> that of one rank on its part: tokens, positions, labels, its share of the loss.

Every rank of a group gives the model the same tokens; each runs its part of them through all layers, and attention
alone exchanges keys. Invariant: the mean over the ranks of their losses, and so of their gradients, is that of one
process with the whole sequence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache

from sparsec.diagnostics.model import CallError
from sparsec.distributed import Plan, plan
from sparsec.distributed.attention import ParallelAttention
from sparsec.distributed.held import made_of
from sparsec.distributed.work import work_of_heads
from sparsec.runtime.module import SparseAttention

Layers = Callable[[torch.device], Sequence[SparseAttention]]

IGNORED = -100
"""The label of a token without a loss."""
LENGTH = "sparsec_tokens"
"""The argument that takes the length of the whole sequence down to the layers."""


@dataclass(eq=False)
class SequenceRanks:
    """The ranks that hold a sequence together, and what they run for each layer's module and length; layers of equal
    patterns share a plan."""

    mesh: DeviceMesh | ProcessGroup
    _made: dict[tuple[int, int], tuple[SparseAttention, ParallelAttention]] = field(default_factory=dict)
    _dealt: dict[int, Plan] = field(default_factory=dict)
    _plans: dict[tuple[str, int], Plan] = field(default_factory=dict)

    @property
    def group(self) -> ProcessGroup:
        return self.mesh.get_group() if isinstance(self.mesh, DeviceMesh) else self.mesh

    def dealt(self, length: int, device: torch.device, layers: Layers) -> Plan:
        """The plan that deals out the positions: that of the layer with the most work."""
        if length not in self._dealt:
            most = max(layers(device), key=lambda attn: sum(work_of_heads(attn.lowered, length)))
            first = self._dealt[length] = plan(most, self.mesh, length)
            self._plans[first.made_from, length] = first
        return self._dealt[length]

    def attend(self, attn: SparseAttention, length: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A layer's attention: this rank's queries to the keys of all ranks."""
        found = self._made.get((id(attn), length))
        if found is None:
            key = made_of(attn), length
            if key not in self._plans:
                self._plans[key] = plan(attn, self.mesh, length, balance=self._dealt[length])
            made = attn.parallel(self._plans[key])
            assert isinstance(made, ParallelAttention)
            found = self._made[id(attn), length] = attn, made
        out: Tensor = found[1](q, k, v)
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> SequenceRanks:
        return SequenceRanks(self.mesh)  # a group is of this process


@dataclass(frozen=True, slots=True)
class BeforeRank:
    """Before a model's forward: takes this rank's part of what the call gives for the whole sequence.

    arguments: the names of the model's, in order. layers: gives each layer's attention on a device; the one with the
    most work decides who holds what.
    """

    ranks: SequenceRanks
    arguments: tuple[str, ...]
    layers: Layers

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        named = {**dict(zip(self.arguments, args, strict=False)), **kwargs}
        if named.get(LENGTH) is not None:  # the decoder of a model whose call was cut already
            return args, kwargs
        whole = named.get("input_ids") if named.get("input_ids") is not None else named.get("inputs_embeds")
        if not isinstance(whole, Tensor):
            raise CallError("expected input_ids or inputs_embeds, got neither")
        self._refuse(named, whole)
        length, group = whole.shape[1], self.ranks.group
        self._same_everywhere(named, group)
        held = self.ranks.dealt(length, whole.device, self.layers)
        for name in ("input_ids", "inputs_embeds"):
            if isinstance(named.get(name), Tensor):
                named[name] = held.shard(named[name], 1)
        named["position_ids"] = held.positions.to(whole.device)[None].expand(whole.shape[0], -1)
        named["attention_mask"] = None
        labels = named.pop("labels", None)
        if labels is not None:
            following = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
            named["labels"] = named["shift_labels"] = held.shard(following, 1)
            counted = named.get("num_items_in_batch")
            total = (following != IGNORED).sum() if counted is None else counted
            named["num_items_in_batch"] = total / dist.get_world_size(group)
        named["use_cache"] = False
        named[LENGTH] = length
        return (), named

    def _refuse(self, named: dict[str, Any], whole: Tensor) -> None:
        ranks = self.ranks.group.size()
        if ranks > whole.shape[1]:
            raise CallError(f"expected at least as many tokens as ranks, {ranks}, got {whole.shape[1]}")
        for name, each in named.items():
            if isinstance(each, Cache):
                raise CallError(f"expected no cache where ranks hold a sequence together, got {name}")
        mask = named.get("attention_mask")
        if mask is not None and not (mask.dim() == 2 and bool((mask != 0).all())):
            raise CallError("expected no padding where ranks hold a sequence together, got some in attention_mask")
        if named.get("position_ids") is not None:
            raise CallError("expected no position_ids where ranks hold a sequence together, got some")

    def _same_everywhere(self, named: dict[str, Any], group: ProcessGroup) -> None:
        """Raises CallError unless every rank was given the same tokens and labels."""
        given = [named[name] for name in ("input_ids", "inputs_embeds", "labels") if named.get(name) is not None]
        marks = [torch.tensor(each.shape).double().sum() + _digest(each) for each in given]
        own = torch.stack(marks).to(given[0].device)
        found = [torch.empty_like(own) for _ in range(group.size())]
        dist.all_gather(found, own, group)
        other = [rank for rank, each in enumerate(found) if not torch.equal(each, found[0])]
        if other:
            raise CallError(f"expected the same tokens and labels on every rank, got others on {other[0]} than on 0")


def hooks_of_ranks(ranks: SequenceRanks, models: Iterable[nn.Module], layers: Layers) -> tuple[RemovableHandle, ...]:
    """Makes each of the models take this rank's part of its calls, unless one around it did already."""
    return tuple(
        model.register_forward_pre_hook(
            BeforeRank(ranks, tuple(inspect.signature(model.forward).parameters), layers), with_kwargs=True
        )
        for model in models
    )


def _digest(x: Tensor) -> Tensor:
    """A number that tells tensors apart, but for chance."""
    weights = torch.arange(1, x.numel() + 1, device=x.device, dtype=torch.float64).cos()
    return (x.detach().reshape(-1).double() * weights).sum().cpu()
