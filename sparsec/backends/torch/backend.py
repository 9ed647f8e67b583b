"""The `torch` backend: plans run in plain PyTorch, on any device; there is nothing to build."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsec.backends.base import Backend, Kernels
from sparsec.backends.torch.cached import TorchCached
from sparsec.backends.torch.kernel import TorchBackward, TorchKernel
from sparsec.backends.torch.mass import TorchMass
from sparsec.backends.torch.paged import TorchPaged
from sparsec.pipeline import Compilation


@dataclass(frozen=True, slots=True)
class TorchBackend:
    """See `backends.base.Backend`."""

    def target_of(self, device: torch.device) -> str:
        return "torch"

    def check_runs(self, device: torch.device) -> None:
        """It runs where torch does."""

    def check_builds(self) -> None:
        """Nothing is built."""

    def kernels(self, compilation: Compilation) -> Kernels:
        return Kernels(
            TorchKernel(compilation.forward),
            lambda: TorchBackward(compilation.backward),
            lambda: TorchCached(compilation.chunks),
            lambda: TorchMass(compilation.forward),
            lambda: TorchCached(compilation.kept[0]),
            lambda: TorchPaged(compilation.chunks),
            lambda kv_dtype, lists: TorchCached(
                compilation.kept[0] if lists else compilation.chunks, kv_dtype=kv_dtype
            ),
        )


BACKEND: Backend = TorchBackend()
