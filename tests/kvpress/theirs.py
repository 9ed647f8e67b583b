"""In kvpress's environment: random models and presses -> the keys that kvpress keeps, and the logits that follow.

    python theirs.py FOLDER

Writes each model and `theirs.pt` into the folder.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from cases import FOLLOWING, LENGTH, MODELS, PRESSES, tokens
from torch import Tensor
from transformers import DynamicCache

Kept = list[list[list[list[int]]]]
"""By layer, sequence and KV group the positions of keys, in order."""


def pressed(model: Any, press: Any) -> tuple[Kept, Tensor]:
    ids, whole, cache = tokens(), DynamicCache(), DynamicCache()
    model(ids[:, :LENGTH], past_key_values=whole)
    with press(model):
        model(ids[:, :LENGTH], past_key_values=cache)
    kept = []
    for layer, (module, full) in enumerate(zip(model.model.layers, whole.layers, strict=True)):
        masked = getattr(module.self_attn, "masked_key_indices", None)
        if masked is not None:
            stays = torch.ones(full.keys.shape[:3], dtype=torch.bool)
            stays[masked] = False
        else:
            own = cache.layers[layer].keys
            stays = (full.keys[:, :, :, None] == own[:, :, None]).all(-1).any(-1)
            assert int(stays.sum()) == own.shape[:3].numel(), "each key is another"
        kept.append([[group.nonzero().flatten().tolist() for group in row] for row in stays])
    logits = []
    for place in range(LENGTH, LENGTH + FOLLOWING):
        positions = torch.full((len(ids), 1), place)
        out = model(ids[:, place : place + 1], past_key_values=cache, position_ids=positions)
        logits.append(out.logits[:, -1])
    return kept, torch.stack(logits, 1)


def main(folder: Path) -> None:
    transformers.utils.logging.disable_progress_bar()
    print(f"kvpress {version('kvpress')}, transformers {transformers.__version__}, torch {torch.__version__}")
    found = {}
    for name, (kind, config) in MODELS.items():
        torch.manual_seed(7)
        model = kind(config).eval()
        for parameter in model.parameters():
            if parameter.dim() == 1:  # weights of norms, which are all 1
                torch.nn.init.normal_(parameter, 1, 0.2)
        model.save_pretrained(folder / name)
        for press, make in PRESSES.items():
            with torch.no_grad():
                found[name, press] = pressed(model, make())
    torch.save(found, folder / "theirs.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
