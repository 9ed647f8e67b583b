"""A program for two processes: `write FOLDER` makes modules and lets them leave, `read FOLDER` uses what arrived."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

TEXT = (
    "pattern p { heads 4 kv 2  block 16  causal  learned_sink  attend sink(4) | window(20) | stride(3b, phase = -g) }"
)
OTHERS = ("torch", "reference")


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((1, heads, 70, 16), generator=generator) for heads in (4, 2, 2))
    return q, k, v


def used(attn: torch.nn.Module) -> list[Tensor]:
    """Output, gradients, and the output of a cache where there is one."""
    q, k, v = (t.requires_grad_() for t in tensors())
    out = attn(q, k, v)
    found = [out.detach(), *torch.autograd.grad(out.sin().sum(), (q, k, v))]
    if getattr(attn, "target", "reference") != "reference":
        with torch.no_grad():
            cache = attn.new_cache(1, 70)
            found += [attn(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], cache=cache) for a, b in ((0, 50), (50, 70))]
    return found


class Outputs(Dataset[Tensor]):
    def __init__(self, attn: torch.nn.Module) -> None:
        self.attn = attn

    def __len__(self) -> int:
        return 2

    def __getitem__(self, n: int) -> Tensor:
        with torch.no_grad():
            found: Tensor = self.attn(*tensors())
        return found


def write(folder: Path) -> None:
    import sparsec
    from sparsec.runtime.build.artefact import compile_to_directory

    compile_to_directory(sparsec.parse(TEXT).pattern(), folder / "artefact", target="cpu", head_dim=16, dtype="float32")
    modules = {target: sparsec.compile(TEXT, head_dim=16, target=target) for target in ("cpu", *OTHERS)}
    modules["artefact"] = sparsec.load_compiled(folder / "artefact")
    for name, attn in modules.items():
        attn.sink.data.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
        expected = used(attn)  # the kernels of gradients and of a cache are built by now
        torch.save(expected, folder / f"{name}.expected")
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(attn))
        torch.save(attn, folder / f"{name}.pt")
        if name != "reference":
            program = torch.export.export(attn, tensors())
            torch.export.save(program, folder / f"{name}.pt2")
        if name == "cpu":
            torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "package.pt2"))
    for out in DataLoader(Outputs(modules["cpu"]), num_workers=1, multiprocessing_context="spawn"):
        assert torch.equal(out[0], torch.load(folder / "cpu.expected")[0])


def read(folder: Path) -> None:
    from sparsec.backends.cpu import kernel as cpu
    from sparsec.syntax import parser

    def refuse(*_: object) -> None:
        raise AssertionError("expected kernels from the build cache, and no text read")

    cpu._run_compiler = refuse
    parser.parse = refuse
    for name in ("cpu", *OTHERS, "artefact"):
        expected = torch.load(folder / f"{name}.expected")
        unpickled = pickle.loads((folder / f"{name}.pickle").read_bytes())
        for attn in (unpickled, torch.load(folder / f"{name}.pt", weights_only=False)):
            assert all(map(torch.equal, used(attn), expected)), name
        if name != "reference":
            program = torch.export.load(folder / f"{name}.pt2").module()
            assert all(map(torch.equal, used(program), expected[:4])), name
    package = torch._inductor.aoti_load_package(str(folder / "package.pt2"))
    with torch.no_grad():
        assert torch.equal(package(*tensors()), torch.load(folder / "cpu.expected")[0])
    print("agree")


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
