"""Every causal language model of transformers, small and random: with a pattern it computes what its own eager
attention computes under the pattern's dense mask, or `apply` refuses it in one sentence.

    python tests/sweep/every_model.py                 # all, about 10 minutes
    python tests/sweep/every_model.py llama gemma3    # some
    python tests/sweep/every_model.py --seed 3        # other sizes and weights

Prints a line for each, and exits with 1 if one does neither. A type that cannot be built here is absent: its own code
asks for a package that is not here, or takes no config.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from causal_models import DRAFTS, PLAIN, VOCABULARY, Absent, entries, make

import sparsec
from sparsec.integrations.transformers import apply, new_cache

FULL, SPARSE = "full", "window(5) | sink(2)"
LENGTH, NEW = 24, 6

Model = Any


def check(name: str, seed: int = 0) -> str:
    """What `apply` says that the model of this type lacks; "" if it does what eager attention does.

    Raises AssertionError, or what the model raises, where neither holds.
    """
    model = make(name, seed)
    own = copy.deepcopy(model)
    if name not in DRAFTS:
        with torch.no_grad():
            own(torch.full((1, 5), PLAIN), use_cache=False)  # a refusal of a model that cannot run says nothing
    try:
        apply(model, _program(own, FULL), replace_window=True, target="torch")
    except sparsec.SparsecError as refused:
        said = str(refused)
        assert said.startswith("expected ") and "\n" not in said and len(said) < 400, said
        _same_as_before(model, own)
        return said
    ids = torch.randint(PLAIN, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(seed))
    _same(model, own, ids)
    masked = copy.deepcopy(own)
    sparse = _program(own, SPARSE)
    _attend_by_mask(masked, sparse)
    _same(apply(model, sparse, replace_window=True, target="torch"), masked, ids)
    return ""


def _program(model: Model, terms: str) -> sparsec.Program:
    """The pattern, with what each layer's attention does beside: sinks, a soft cap."""
    cap = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    beside = "" if cap is None else f" softcap {cap:g}"
    attention = {getattr(module, "layer_idx", None): module for module in model.modules() if hasattr(module, "o_proj")}
    sinks = [layer for layer, module in attention.items() if getattr(module, "sinks", None) is not None]
    text = f"pattern plain {{ causal attend {terms}{beside} }}\n"
    if not sinks:
        return sparsec.parse(text)
    text += f"pattern sunk {{ causal attend {terms}{beside} learned_sink }}\n"
    rules = " ".join(f"where l == {layer} use sunk" for layer in sinks)
    rest = "otherwise use plain" if len(sinks) < len(attention) else ""
    return sparsec.parse(text + f"model m {{ layers {len(attention)} {rules} {rest} }}")


def _same(model: Model, dense: Model, ids: Tensor) -> None:
    """Logits and gradients of a call, logits of chunks through a cache, and the tokens that `generate` gives."""
    found, wanted = model(ids, labels=ids, use_cache=False), dense(ids, labels=ids, use_cache=False)
    _close("logits", found.logits, wanted.logits)
    found.loss.backward()
    wanted.loss.backward()
    largest = max(float(each.grad.abs().max()) for each in dense.parameters() if each.grad is not None)
    for (name, one), (_, other) in zip(model.named_parameters(), dense.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), f"a gradient of {name} alone"
        if other.grad is not None:
            _close(f"gradient of {name}", one.grad, other.grad, largest)
    model.zero_grad()
    dense.zero_grad()
    with torch.no_grad():
        cache = new_cache(model, LENGTH)
        name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        chunks = [model(part, **{name: cache}, use_cache=True).logits for part in ids.split([10, 1, 13], 1)]
        own = _first_that_runs(lambda: dense(ids, use_cache=True), lambda: dense(ids, use_cache=False))
        _close("logits through a cache", torch.cat(chunks, 1), own.logits)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}
    options["pad_token_id"] = 0
    given = model.generate(ids, **options)
    expected = _first_that_runs(
        lambda: dense.generate(ids, **options), lambda: dense.generate(ids, use_cache=False, **options)
    )
    assert torch.equal(given, expected), f"generate() gave {given.tolist()}, expected {expected.tolist()}"


def _first_that_runs(with_cache: Callable[[], Any], without: Callable[[], Any]) -> Any:
    """With the host's own cache, which may keep other layers' keys; without, where its own cache fails."""
    try:
        return with_cache()
    except (RuntimeError, ValueError):
        return without()


def _close(what: str, found: Tensor, wanted: Tensor, largest: float = 0.0) -> None:
    """largest: of what `wanted` is a part; a part that is 0 but for rounding is measured by a hundredth of it."""
    scale = max(float(wanted.abs().max()), 0.01 * largest, 1e-6)
    assert bool(wanted.isfinite().all()), f"{what} of eager attention are not finite"
    off = float((found - wanted).abs().max()) / scale
    assert off < 2e-4, f"{what} off by {off:.1e} of the largest"


def _same_as_before(model: Model, own: Model) -> None:
    """A model that was refused is as it was."""
    ids = torch.full((1, 5), PLAIN)
    one, other = (_outcome(lambda each=each: each(ids, use_cache=False).logits) for each in (model, own))
    assert type(one) is type(other) and (not isinstance(one, Tensor) or torch.equal(one, other)), "apply changed it"
    assert not hasattr(model.config, "sparsec")


def _outcome(call: Callable[[], Tensor]) -> Tensor | Exception:
    try:
        return call()
    except Exception as error:
        return error


def _attend_by_mask(model: Model, program: sparsec.Program) -> None:
    """Makes a model attend by its own eager function under the pattern's dense mask."""
    pattern = program.pattern("plain")

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
    ) -> Any:
        eager = sys.modules[type(module).__module__].eager_attention_forward
        heads, rows, keys = query.shape[1], query.shape[2], key.shape[2]
        seen = pattern.mask(keys, keys, heads, key.shape[1])[None, :, keys - rows :]
        return eager(module, query, key, value, torch.where(seen, 0.0, -1e30), **options)

    AttentionInterface.register("sweep", attend)
    AttentionMaskInterface.register("sweep", lambda *args, **kwargs: None)
    model.set_attn_implementation("sweep")
    assert any(each._attn_implementation == "sweep" for each in (model.config, model.config.get_text_config()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="model types; all, if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1", help="i/n: every n-th name, from the i-th on")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    index, count = map(int, given.part.split("/"))
    tally = {"equal": 0, "refused": 0, "absent": 0, "FAILED": 0}
    for name in given.names or entries()[index::count]:
        try:
            said = check(name, given.seed)
            outcome = "refused" if said else "equal"
        except (ImportError, Absent) as error:
            outcome, said = "absent", str(error).strip().splitlines()[0]
        except Exception as error:
            outcome, said = "FAILED", f"{type(error).__name__}: {error}".splitlines()[0][:300]
        tally[outcome] += 1
        print(f"{name:28} {outcome:8} {said}", flush=True)
    print(f"transformers {transformers.__version__}:", ", ".join(f"{number} {each}" for each, number in tally.items()))
    return 1 if tally["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
