"""In sparsec's environment: the same models and presses -> whether `compress` keeps the same keys, and goes on alike.

    python ours.py FOLDER KVPRESS_SITE_PACKAGES

Exit status 1 if anything differs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(sys.argv[2])  # kvpress and what it needs; this environment's own packages come first

import torch
import transformers
from cases import LENGTH, MODELS, PRESSES, RATIO, tokens
from torch import Tensor

from sparsec.integrations.transformers import adaptive, compress, new_cache, remove


def compressed(model: Any, press: Any) -> tuple[list[Any], Tensor]:
    ids, alone = tokens(), getattr(press, "press", None)
    if alone is None:
        compress(model, press, 1 - RATIO)
    else:
        compress(model, alone, adaptive(1 - RATIO, floor=press.alpha_safeguard))
    cache = new_cache(model, ids.shape[1])
    model(ids[:, :LENGTH], past_key_values=cache)
    kept = []
    for layer in cache.layers:
        lists, places = layer.kv.kept.lists.tolist(), layer.kv.kept.entries[0]
        kept.append([[places[base : base + count].tolist() for base, _, count in row] for row in lists])
    logits = model(ids[:, LENGTH:], past_key_values=cache).logits
    remove(model)
    return kept, logits


def main(folder: Path) -> int:
    transformers.utils.logging.disable_progress_bar()
    print(f"sparsec, transformers {transformers.__version__}, torch {torch.__version__}")
    theirs, differing = torch.load(folder / "theirs.pt"), 0
    for name, (kind, _) in MODELS.items():
        model = kind.from_pretrained(folder / name).eval()
        for press, make in PRESSES.items():
            with torch.no_grad():
                kept, logits = compressed(model, make())
            wanted, following = theirs[name, press]
            pairs = [
                (set(own), set(other))
                for layer, other_layer in zip(kept, wanted, strict=True)
                for row, other_row in zip(layer, other_layer, strict=True)
                for own, other in zip(row, other_row, strict=True)
            ]
            same = sum(len(own & other) for own, other in pairs)
            most = max(sum(len(own) for own, _ in pairs), sum(len(other) for _, other in pairs))
            sizes = sorted({len(own) for own, _ in pairs})
            off = float((logits - following).abs().max())
            alike = same == most and off < 1e-3
            differing += not alike
            print(
                f"{'same' if alike else 'DIFFERENT':10}{name:9}{press:19}{same} of {most} keys, {sizes[0]} to "
                f"{sizes[-1]} of {LENGTH} a group; logits within {off:.1e}"
            )
    return int(differing > 0)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
