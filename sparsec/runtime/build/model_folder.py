"""The kinds of layers of a model as a folder: a sub-folder for each, and `model.json`, which names that of each layer.

Invariant: a sub-folder holds, byte for byte, what `compile_to_directory` writes for its pattern alone; the whole is
written under a temporary name and renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path

from sparsec import __version__
from sparsec.backends import registry
from sparsec.diagnostics.model import CallError
from sparsec.pipeline import Compilation
from sparsec.program import LayerKind
from sparsec.runtime.build.artefact import FolderOptions, FolderPlan, check_replaceable, json_bytes, publish_folder
from sparsec.runtime.build.at_once import side_by_side
from sparsec.runtime.build.manifest import MODEL, MODEL_FORMAT, Manifest, Proof

_LONGEST_NAME = 100


def compile_model_to_directory(
    name: str,
    kinds: Sequence[LayerKind],
    directory: Path,
    options: FolderOptions,
    *,
    progress: Callable[[str], None] = lambda _: None,
    prove: Callable[[LayerKind, Compilation], Proof] | None = None,
) -> dict[str, Manifest]:
    """Writes the artefacts of each of a model's `kinds` to a sub-folder of `directory`; their manifests by its name.

    The sub-folders are as of `compile_to_directory`, and so are `progress`, `prove` (called for each kind before
    anything is built), what becomes of an existing folder, and what is raised. Where a compiler builds the target's
    kernels in processes of its own, kinds are built side by side, as many as this process has cores.
    """
    check_replaceable(directory)
    folders = dict(zip(folder_names(kinds), kinds, strict=True))
    plans: dict[str, FolderPlan] = {}
    proofs: dict[str, Proof] = {}
    if prove is not None:
        for done, (folder, kind) in enumerate(folders.items()):
            progress(f"proving {kind}; {done} of {len(kinds)} kinds of layers are proved")
            plans[folder] = _plan(kind, options)
            proofs[folder] = prove(kind, plans[folder].compilation)
    built_so_far = 0

    def count(done: int, _: int) -> None:
        nonlocal built_so_far
        built_so_far = done

    def report(kind: LayerKind, step: str) -> None:
        progress(f"{step}: {kind}; {built_so_far} of {len(kinds)} kinds of layers are built")

    def build(folder: str, kind: LayerKind) -> tuple[Manifest, dict[str, bytes]]:
        report(kind, "lowering")
        plan = plans.get(folder) or _plan(kind, options)
        return plan.build(proofs.get(folder), partial(report, kind))

    works: list[tuple[Hashable, Callable[[], tuple[Manifest, dict[str, bytes]]]]] = [
        (folder, partial(build, folder, kind)) for folder, kind in folders.items()
    ]
    if registry.BACKENDS[registry.backend_name(options.target)].ahead:
        results = side_by_side(works, count)
    else:
        results = tuple(_counted(work, n, count) for n, (_, work) in enumerate(works))
    manifests = dict(zip(folders, (manifest for manifest, _ in results), strict=True))
    files = {
        f"{folder}/{file}": data
        for folder, (_, of_kind) in zip(folders, results, strict=True)
        for file, data in of_kind.items()
    }
    progress("writing")
    publish_folder(directory, {**files, MODEL: json_bytes(_model_data(name, folders, options.target))})
    return manifests


def folder_names(kinds: Sequence[LayerKind]) -> tuple[str, ...]:
    """The sub-folder of each kind: its pattern's name, with its first layer where several kinds have that name."""
    stems = [kind.pattern.name[:_LONGEST_NAME] for kind in kinds]
    return tuple(
        stem if stems.count(stem) == 1 else f"{stem}-{kind.layers[0]}" for stem, kind in zip(stems, kinds, strict=True)
    )


def _plan(kind: LayerKind, options: FolderOptions) -> FolderPlan:
    try:
        return FolderPlan.of(kind.pattern, kind.meaning.heads, kind.meaning.kv_heads, options)
    except CallError as error:
        raise CallError(f"{error} ({kind})") from error


def _counted(
    work: Callable[[], tuple[Manifest, dict[str, bytes]]], n: int, count: Callable[[int, int], None]
) -> tuple[Manifest, dict[str, bytes]]:
    count(n, n)
    return work()


def _model_data(name: str, folders: Mapping[str, LayerKind], target: str) -> dict[str, object]:
    """`layers`: the sub-folder of each layer, from layer 0 on."""
    of_layer = {layer: folder for folder, kind in folders.items() for layer in kind.layers}
    return {
        "format": MODEL_FORMAT,
        "sparsec": __version__,
        "model": name,
        "target": target,
        "layers": [of_layer[layer] for layer in sorted(of_layer)],
    }
