"""Continuous batching of a model with a pattern gives the tokens of its `generate()`, and holds live blocks alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers
from test_transformers import LAYERS, PATTERN, SINKS, VOCABULARY, Model, gemma3, gpt_oss, greedy, llama, mistral
from transformers import CompileConfig, GenerationConfig

from sparsec.integrations.transformers import apply, remove
from sparsec.integrations.transformers.batching import OLDEST, has_allocators

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(not has_allocators(), reason=f"transformers before {OLDEST} has no allocators to stand for"),
]

PAGE = 4
LENGTHS = (3, 17, 40, 9, 26, 1, 33)
STREAM = "pattern stream { causal attend window(12) | sink(4) }"
DENSE = "pattern dense { causal attend full }"
THREE = """
pattern near { causal attend window(5) }
pattern far { causal attend window(14) | sink(1) }
pattern all { causal attend full }
model three { layers 4 where l == 0 use near where l == 1 use all otherwise use far }
"""
GROUPS = "pattern groups { causal where g == 0 attend window(4) | stride(8) otherwise attend window(9) | sink(3) }"
Prompts = list[list[int]]


def prompts(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> Prompts:
    numbers = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (length,), generator=numbers).tolist() for length in lengths]


def plain(model: Model, given: Prompts, new: int) -> list[list[int]]:
    """What `generate()` gives, of one padded batch."""
    longest = max(map(len, given))
    ids = torch.tensor([[0] * (longest - len(each)) + each for each in given])
    return greedy(model, ids, new, attention_mask=(ids > 0).long())


def settings(**changes: Any) -> Any:
    given = {"page_size": PAGE, "num_blocks": 128, "max_batch_tokens": 24, "allow_block_sharing": False}
    return transformers.ContinuousBatchingConfig(**given | changes)


def plan(new: int, **changes: Any) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=0, **changes)


def batched(model: Model, given: Prompts, new: int = 12, **changes: Any) -> list[list[int]]:
    found = model.generate_batch(given, generation_config=plan(new), continuous_batching_config=settings(**changes))
    assert [each.error for each in found.values()] == [None] * len(given)
    return [each.generated_tokens for each in found.values()]


@dataclass
class Watch:
    """What the allocators hold: of each kind of layers, the most blocks at once, and those of a request at once; and
    how often a request was put out of the cache before its end."""

    most: dict[str, int] = field(default_factory=dict)
    most_of_one: dict[str, int] = field(default_factory=dict)
    put_out: int = 0

    def look(self, allocator: Any) -> None:
        blocks = [len(each) for each in allocator.block_table.values()]
        for seen, now in ((self.most, sum(blocks)), (self.most_of_one, max(blocks, default=0))):
            seen[allocator.layer_type] = max(seen.get(allocator.layer_type, 0), now)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    from sparsec.integrations.transformers.live_blocks import LiveAllocator

    found, take, free = Watch(), LiveAllocator.allocate_cache_to_request, LiveAllocator.free_blocks

    def taken(self: Any, *args: Any) -> None:
        take(self, *args)
        found.look(self)

    def freed(self: Any, request_id: str, no_cache: bool = False) -> None:
        free(self, request_id, no_cache)
        found.put_out += no_cache

    monkeypatch.setattr(LiveAllocator, "allocate_cache_to_request", taken)
    monkeypatch.setattr(LiveAllocator, "free_blocks", freed)
    return found


@contextmanager
def serving(model: Model, new: int = 12, **changes: Any) -> Iterator[Any]:
    """A manager whose blocks hold NaN before they are written; at the end, no request holds a block."""
    with model.continuous_batching_context_manager(
        generation_config=plan(new), continuous_batching_config=settings(**changes)
    ) as manager:
        cache = manager.batch_processor.cache
        cache.cache_tensor.fill_(255)
        free = cache.compute_free_capacity(relative=False)
        yield manager
        assert cache.compute_free_capacity(relative=False) == free
        assert [each.block_table for each in cache.cache_allocators.values()] == [{}] * len(cache.cache_allocators)


def results(manager: Any, count: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    while len(found) < count:
        result = manager.get_result(timeout=1)
        if result is None:
            assert manager.is_running(), manager.background_thread_status.fatal_error
        elif result.is_finished():
            found[result.request_id] = result.generated_tokens
    return found


@pytest.mark.parametrize(
    ("make", "text", "target"),
    [
        (llama, PATTERN, "cpu"),
        (llama, LAYERS, "torch"),
        (llama, GROUPS, "cpu"),
        (lambda: llama(num_hidden_layers=4), THREE, "torch"),
        (mistral, STREAM, "torch"),
        (gemma3, LAYERS, "torch"),
        (gpt_oss, SINKS, "torch"),
    ],
)
def test_batches_give_the_tokens_of_generate(make: Callable[[], Model], text: str, target: str) -> None:
    torch.manual_seed(0)
    model = apply(make().eval(), text, replace_window=True, target=target)
    given = prompts()
    assert batched(model, given) == plain(model, given, 12)


@pytest.fixture(scope="module")
def stream() -> Model:
    torch.manual_seed(2)
    return apply(llama().eval(), STREAM, target="cpu")


def test_live_blocks_alone_are_held(stream: Model, watch: Watch) -> None:
    given, new = prompts((120, 100, 140)), 30
    with serving(stream, new) as manager:
        names = manager.add_requests(given)
        found = results(manager, 3)
    assert [found[name] for name in names] == plain(stream, given, new)
    # One block of sinks, those of the window, which starts within one, and of the 24 tokens of a batch.
    assert watch.most_of_one["full_attention"] <= 1 + 12 // PAGE + 1 + 24 // PAGE
    dense = sum(-(-(len(each) + new) // PAGE) for each in given)
    assert watch.most["full_attention"] <= dense // 4


def test_layers_that_differ_hold_their_own_blocks(watch: Watch) -> None:
    torch.manual_seed(3)
    text = STREAM + "pattern all { causal attend full } model m { layers 2 where l == 1 use all otherwise use stream }"
    model = apply(llama().eval(), text, target="torch")
    (prompt,) = prompts((60,))
    assert batched(model, [prompt], 20, max_batch_tokens=8) == plain(model, [prompt], 20)
    assert watch.most == {"full_attention": -(-79 // PAGE), "sliding_attention": 1 + 12 // PAGE + 8 // PAGE}


def test_requests_stream_join_and_leave(stream: Model) -> None:
    given = prompts((30, 21, 44, 5))
    with serving(stream, 40) as manager:
        first = manager.add_request(given[0], max_new_tokens=24, streaming=True)
        left = manager.add_request(given[1], max_new_tokens=40, streaming=True)
        streamed: dict[str, list[list[int]]] = {first: [], left: []}
        while len(streamed[left]) < 5:
            result = manager.get_result(timeout=10)
            streamed[result.request_id].append(list(result.generated_tokens))
        joined = [manager.add_request(each, max_new_tokens=12) for each in given[2:]]
        manager.cancel_request(left)
        found: dict[str, list[int]] = {}
        while len(found) < 3:
            result = manager.get_result(timeout=10)
            if result.request_id in streamed:
                streamed[result.request_id].append(list(result.generated_tokens))
            if result.is_finished():
                found[result.request_id] = list(result.generated_tokens)
    whole = plain(stream, given, 40)
    wanted = {first: whole[0][:24]} | {name: each[:12] for name, each in zip(joined, whole[2:], strict=True)}
    assert found == wanted
    assert len(streamed[first]) == 24, "a token at a time"
    assert len(streamed[left]) < 40
    wanted[left] = whole[1]
    for name, each in ((name, each) for name, parts in streamed.items() for each in parts):
        assert each == wanted[name][: len(each)]


@pytest.mark.parametrize("aside", [0.0, 0.01])
@pytest.mark.parametrize("text", [STREAM, LAYERS])
def test_a_cache_too_small_for_all(text: str, aside: float, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait, and some are put out of the cache: their blocks are kept aside, or computed anew."""
    torch.manual_seed(4)
    model = apply(llama().eval(), text, target="cpu")
    given = prompts((30, 40, 35, 28))
    wanted, empty = plain(model, given, 20), torch.empty
    monkeypatch.setattr(torch, "empty", lambda *sizes, pin_memory=False, **options: empty(*sizes, **options))
    assert batched(model, given, 20, num_blocks=20, max_batch_tokens=16, cpu_offload_space=aside) == wanted
    assert watch.put_out > 0


def test_a_request_longer_than_the_cache(stream: Model) -> None:
    (prompt,) = prompts((90,))
    assert batched(stream, [prompt], 20, num_blocks=10, max_batch_tokens=8) == plain(stream, [prompt], 20)


def test_prompts_share_blocks_where_nothing_is_dropped(watch: Watch) -> None:
    torch.manual_seed(5)
    model = apply(llama().eval(), DENSE, target="torch")
    (start,) = prompts((32,))
    given = [start + end for end in prompts((6, 7), seed=1)]
    wanted = plain(model, given, 8)
    with serving(model, 8, allow_block_sharing=True) as manager:
        for prompt, tokens in zip(given, wanted, strict=True):
            name = manager.add_request(prompt)
            assert results(manager, 1) == {name: tokens}
        cache = manager.batch_processor.cache
        assert cache.use_prefix_sharing
        (allocator,) = cache.cache_allocators.values()
        assert len(allocator.ledger.cached_blocks) == 45 // PAGE + 46 // PAGE - 32 // PAGE, "the start is there once"
        cache.evict_cached_blocks()


def test_prompts_share_no_blocks_that_may_be_dropped(stream: Model) -> None:
    (start,) = prompts((32,))
    given = [start + end for end in prompts((5, 7), seed=1)]
    with serving(stream, 8, allow_block_sharing=True) as manager:
        assert not manager.batch_processor.cache.use_prefix_sharing
        names = manager.add_requests(given)
        found = results(manager, 2)
    assert [found[name] for name in names] == plain(stream, given, 8)


def test_a_prompt_with_several_answers(stream: Model) -> None:
    (prompt,) = prompts((30,))
    found = stream.generate_batch(
        [prompt],
        generation_config=GenerationConfig(
            max_new_tokens=9, do_sample=True, top_k=1, num_return_sequences=3, pad_token_id=0
        ),
        continuous_batching_config=settings(),
    )
    assert [each.generated_tokens for each in found.values()] == plain(stream, [prompt], 9) * 3


def test_a_batch_with_padding(stream: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """As compiled forwards have it."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    given, compiled = prompts((11, 5)), CompileConfig()
    found = batched(stream, given, 6, varlen_compile_config=compiled, q_padding_interval_size=16)
    assert found == plain(stream, given, 6)


def test_the_model_gets_its_own_back() -> None:
    torch.manual_seed(6)
    model = apply(llama().eval(), STREAM, target="torch")
    given = prompts((9, 20))
    for each in (given, given[::-1]):  # the same manager and cache
        found = model.generate_batch(
            each, generation_config=plan(4), continuous_batching_config=settings(), persistent_manager=True
        )
        assert [one.generated_tokens for one in found.values()] == plain(model, each, 4)
    assert type(model._cached_continuous_batching_manager).__name__ == "PatternManager"
    remove(model)
    assert not {"_cached_continuous_batching_manager", "init_continuous_batching"} & set(vars(model))
    model.set_attn_implementation("eager")
    assert batched(model, given, 4) == plain(model, given, 4)
    assert type(model.init_continuous_batching()).__name__ == "ContinuousBatchingManager"
