"""What of the plug-in of vLLM needs no vLLM: the pattern that is asked for, the pages that live, what is refused."""

from __future__ import annotations

import logging
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import sparsec
from sparsec.integrations import vllm as plugin
from sparsec.integrations.vllm import live
from sparsec.integrations.vllm.fit import LayerAsks, check_config, check_served
from sparsec.integrations.vllm.wanted import VARIABLE, Wanted, wanted_by

ROOT = Path(__file__).parents[3]
TEXT = "pattern p { heads 2 kv 1  causal  attend sink(4) | window(20) }"
NOTHING = SimpleNamespace()


def test_vllm_finds_it_by_its_entry_point() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vllm.general_plugins"]
    name, _, attribute = declared["sparsec"].partition(":")
    assert getattr(import_module(name), attribute) is plugin.plug_in


@pytest.mark.parametrize(
    ("cpu", "backend", "path"), [(True, "CPU_ATTN", "on_cpu.ServedOnCpu"), (False, "CUSTOM", "on_gpu.ServedOnGpu")]
)
def test_it_names_its_backends(monkeypatch: pytest.MonkeyPatch, cpu: bool, backend: str, path: str) -> None:
    named = {}
    platforms, registry = ModuleType("vllm.platforms"), ModuleType("vllm.v1.attention.backends.registry")
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: cpu)  # type: ignore[attr-defined]  # vLLM's
    registry.AttentionBackendEnum = SimpleNamespace(CPU_ATTN="CPU_ATTN", CUSTOM="CUSTOM")  # type: ignore[attr-defined]  # vLLM's
    registry.register_backend = named.__setitem__  # type: ignore[attr-defined]  # vLLM's
    for module in (platforms, registry):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    plugin.plug_in()
    assert named == {backend: f"sparsec.integrations.vllm.{path}"}
    module, _, attribute = path.partition(".")
    source = (Path(plugin.__file__).parent / f"{module}.py").read_text()
    assert f"class {attribute}(" in source


def test_it_leaves_another_vllm_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "vllm.platforms", None)
    with caplog.at_level(logging.WARNING):
        plugin.plug_in()
    assert "no backends of attention in this vLLM" in caplog.text


def test_the_first_place_that_names_a_pattern_counts(tmp_path: Path) -> None:
    file = tmp_path / "p.sparse"
    file.write_text(TEXT)
    saved = SimpleNamespace(
        sparsec={"text": TEXT, "filename": "saved.sparse", "name": "p", "params": {}, "rollback": 0}
    )
    own, variable = Wanted(TEXT, "saved.sparse", "p"), {VARIABLE: f"{file}#p"}
    assert wanted_by({}, {}, NOTHING) is None
    assert wanted_by({}, {}, saved) == own
    assert wanted_by({}, variable, saved) == Wanted(TEXT, str(file), "p")
    given = {"sparsec": {"path": str(file), "params": {"a": 1}}}
    assert wanted_by(given, variable, saved) == Wanted(TEXT, str(file), None, '{"a": 1}')
    assert wanted_by({"sparsec": TEXT}, {}, NOTHING) == Wanted(TEXT, "<additional_config['sparsec']>")
    assert wanted_by({}, {}, SimpleNamespace(sparsec="p.sparse"), tmp_path) == Wanted(TEXT, str(file))


@pytest.mark.parametrize(
    ("additional", "environment", "message"),
    [
        ({"sparsec": 3}, {}, r"a path, a text, or a mapping with one of them in additional_config\['sparsec'\], got 3"),
        ({"sparsec": {"name": "p"}}, {}, "a mapping with one of them"),
        ({"sparsec": {"text": TEXT, "patern": "p"}}, {}, "text, path, name, params in .*, got 'patern'"),
        ({"sparsec": {"text": TEXT, "params": [1]}}, {}, "params"),
        ({}, {VARIABLE: "p.txt"}, "expected the path of a .sparse file in SPARSEC_VLLM, got 'p.txt'"),
        ({"sparsec": "no/such.sparse"}, {}, "no/such.sparse"),
    ],
)
def test_what_names_no_pattern_is_refused(additional: Any, environment: dict[str, str], message: str) -> None:
    with pytest.raises(sparsec.SparsecError, match=message):
        wanted_by(additional, environment, NOTHING)


def test_layers_that_differ_and_models_of_other_layers() -> None:
    text = "pattern a { causal attend full }\npattern b { causal attend window(8) }\n"
    text += "model m { layers 4  where l < 2 use a  otherwise use b }"
    patterns = Wanted(text, "<m>").patterns(4)
    assert [each.name for each in patterns] == ["a", "a", "b", "b"] and patterns[0] is patterns[1]
    assert Wanted(TEXT, "<p>").patterns(3)[2].name == "p"
    with pytest.raises(sparsec.CallError, match="'m': expected layers=4, as its file says, got layers=6"):
        Wanted(text, "<m>").patterns(6)


PATTERNS = {
    "sink and window": "attend sink(4) | window(20)",
    "window": "attend window(40)",
    "full": "attend full",
    "sink alone": "attend sink(3)",
    "chunks": "attend chunk(48)",
    "one block in four": "block 16  attend window(1b) | stride(4b, phase = 1b)",
    "groups that differ": "where h % 2 == 0 attend window(70) otherwise attend sink(40) | window(8)",
}
SIZE, LONGEST = 16, 250


def needed_of(text: str) -> tuple[live.Needed, Any]:
    pattern = sparsec.parse(f"pattern p {{ causal  {text} }}").pattern()
    return live.needed_by(pattern.cache_layout(4, 4)), pattern.mask(LONGEST, LONGEST, 4, 4).any(dim=0)


@pytest.mark.parametrize("text", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_request_loses_the_pages_that_nobody_needs_again(text: str, chunk: int) -> None:
    needed, seen = needed_of(text)
    most = live.most_held(needed, SIZE, chunk, LONGEST)
    freed: set[int] = set()
    before, peak = 0, 0
    for done in range(0, LONGEST, chunk):
        new = {page for each in live.newly_dead(needed, before, done // SIZE, SIZE) for page in each}
        assert not new & freed and all((page + 1) * SIZE <= done for page in new)
        freed, before = freed | new, done // SIZE
        for page in new:
            assert not seen[done:, page * SIZE : (page + 1) * SIZE].any()
        stop = min(LONGEST, done + chunk)
        peak = max(peak, -(-stop // SIZE) - len(freed))
    whole = LONGEST // SIZE
    alive = {n for n in range(whole) if seen[whole * SIZE :, n * SIZE : (n + 1) * SIZE].any()}
    assert alive <= set(live.live_pages(needed, whole, SIZE)) and peak <= most <= -(-LONGEST // SIZE)
    if text.startswith("attend sink(4)"):
        assert most <= peak + 1
        assert set(live.live_pages(needed, whole, SIZE)) == {0, whole - 2, whole - 1}


@pytest.mark.parametrize("text", PATTERNS.values(), ids=PATTERNS)
def test_a_prefix_is_cached_when_its_live_pages_are(text: str) -> None:
    needed, _ = needed_of(text)
    for lost in ((), (0,), (3,), (9,), (2, 11), (1, 2, 3, 4, 5, 6, 7, 8)):
        for every in (1, 2):
            found = live.longest_hit(needed, 14, SIZE, every, lambda page, lost=lost: page not in lost)  # type: ignore[misc]  # a default
            right = [n for n in range(0, 15, every) if not set(live.live_pages(needed, n, SIZE)) & set(lost)]
            assert found == max(right)
    window = live.needed_by(sparsec.parse("pattern p { causal attend window(20) }").pattern().cache_layout(2, 2))
    assert live.longest_hit(window, 14, SIZE, 1, lambda page: page > 8) == 14


def config(**changes: Any) -> Any:
    parallel = {"decode_context_parallel_size": 1, "prefill_context_parallel_size": 1}
    return SimpleNamespace(
        speculative_config=changes.get("speculative_config"),
        kv_transfer_config=changes.get("kv_transfer_config"),
        parallel_config=SimpleNamespace(**{name: changes.get(name, one) for name, one in parallel.items()}),
        model_config=SimpleNamespace(use_mla=changes.get("use_mla", False)),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=changes.get("kv_sharing_fast_prefill", False)),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speculative_config": 1}, "expected vLLM without speculative decoding"),
        ({"kv_transfer_config": 1}, "without transfer of keys"),
        ({"decode_context_parallel_size": 2}, "--decode-context-parallel-size of 1 .* got 2"),
        ({"prefill_context_parallel_size": 2}, "--prefill-context-parallel-size of 1 .* got 2"),
        ({"use_mla": True}, "got latent ones"),
        ({"kv_sharing_fast_prefill": True}, "no --kv-sharing-fast-prefill"),
    ],
)
def test_what_vllm_is_started_with_and_no_pattern_gives(changes: dict[str, Any], message: str) -> None:
    check_config(config())
    with pytest.raises(sparsec.CallError, match=message):
        check_config(config(**changes))


LAYER = {"scale": 0.25, "softcap": None, "alibi": None, "sinks": False, "window": None}
LAYER |= {"kv_cache_dtype": "auto", "kind": "decoder", "shares": None, "others": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 64}, "without a sliding window of its own, got one of 64 tokens"),
        ({"kind": "encoder"}, "expected layers of a decoder, got one of kind 'encoder'"),
        ({"shares": "layers.0"}, "got one with those of layers.0"),
        ({"kv_cache_dtype": "fp8"}, "got fp8"),
        ({"others": {"chunk_lookback": 3}}, "expected attention without chunk_lookback, got 3"),
    ],
)
def test_what_a_layer_has_and_no_pattern_gives(changes: dict[str, Any], message: str) -> None:
    LayerAsks(**LAYER).check()
    with pytest.raises(sparsec.CallError, match=message):
        LayerAsks(**LAYER | changes).check()


@pytest.mark.parametrize(
    ("changes", "statements", "message"),
    [
        ({"softcap": 30.0}, "", "with the layer's `softcap 30`, got None"),
        ({"softcap": 30.0}, "softcap 30", None),
        ({"sinks": True}, "", "with learned_sink, for the layer has sinks; got one without"),
        ({}, "learned_sink", "without learned_sink; got one with"),
        ({"sinks": True}, "learned_sink", None),
        ({}, "scale 0.5", "with the layer's scale 0.25, got 0.5"),
        ({}, "scale 0.25", None),
        ({"alibi": (0.5, 0.25)}, "", r"with the layer's alibi \[0.5, 0.25\], got \[\]"),
        ({"alibi": (0.5, 0.25)}, "alibi [0.5, 0.25]", None),
        ({"alibi": (0.5, 0.25)}, "alibi [0.5, 0.125]", r"got \[0.5, 0.125\]"),
    ],
)
def test_a_layers_score_is_the_patterns(changes: dict[str, Any], statements: str, message: str | None) -> None:
    pattern = sparsec.parse(f"pattern p {{ heads 2 kv 1  causal  {statements}  attend window(8) }}").pattern()
    asks = LayerAsks(**LAYER | changes)
    if message is None:
        asks.check_score(pattern, pattern.resolve().score, 2)
    else:
        with pytest.raises(sparsec.CallError, match=message):
            asks.check_score(pattern, pattern.resolve().score, 2)


def test_a_server_gives_no_inputs() -> None:
    check_served(sparsec.parse(TEXT).pattern())
    with pytest.raises(sparsec.CallError, match="without inputs, for vLLM gives none, got 'p' with kept"):
        check_served(sparsec.parse("pattern p { causal  input kept : tokens  attend kept }").pattern())
