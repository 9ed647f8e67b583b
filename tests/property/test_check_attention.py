"""`check_attention` accepts attention that is right and shows the smallest case of one that is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.sema.model import Heads
from sparsec.testing import check_attention

TEXTS = (
    "pattern p { heads 4 kv 2  block 16  causal  attend window(2b) | stride(3b, phase = -g) }",
    "pattern p { heads 4 kv 2  causal  softcap 2  learned_sink  attend window(20) }",
    "pattern p { heads 4 kv 2  causal  alibi  documents restart  attend window(20) | sink(3) }",
)


def resolved(text: str) -> Heads:
    return sparsec.parse(text).pattern().resolve()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("probes", [False, True])
def test_a_compiled_pattern_is_what_it_means(text: str, probes: bool) -> None:
    attn = sparsec.compile(text, head_dim=16, target="torch")
    check_attention(attn, sparsec.parse(text).pattern(), probes=probes, examples=20)


def test_a_wrong_window_is_found_at_its_smallest() -> None:
    attn = sparsec.compile("pattern p { heads 2 causal attend window(21) }", head_dim=8, target="torch")
    with pytest.raises(
        AssertionError, match=r"(?s)error of the output.*batch 1, \d+ queries, 21 keys.*window\(20\)"
    ) as raised:
        check_attention(attn, resolved("pattern p { heads 2 causal attend window(20) }"))
    assert raised.value.__notes__ == [] and "tensor" not in str(raised.value)


def test_any_callable_is_checked() -> None:
    def dense(q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool) -> tuple[Tensor, Tensor]:
        ahead = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1 + k.shape[2] - q.shape[2])
        scores = (q @ k.mT / q.shape[3] ** 0.5).masked_fill(ahead, -torch.inf)
        return scores.softmax(-1) @ v, scores.logsumexp(-1)

    check_attention(dense, resolved("pattern p { heads 2 causal attend full }"), dtype=torch.bfloat16, examples=20)
    with pytest.raises(AssertionError):
        check_attention(dense, resolved("pattern p { heads 2 causal attend ~sink(1) }"))


def test_a_long_term_is_drawn_past_its_end() -> None:
    attn = sparsec.compile("pattern p { heads 2 causal attend window(401) }", head_dim=8, target="torch")
    with pytest.raises(AssertionError, match=r"(?s)error of the output.* 401 keys.*window\(400\)"):
        check_attention(attn, resolved("pattern p { heads 2 causal attend window(400) }"))


def test_a_term_too_long_to_show_is_named() -> None:
    text = "pattern p { heads 2 causal attend window(2000) }"
    attn = sparsec.compile(text, head_dim=8, target="torch")
    with pytest.warns(UserWarning, match="2000 tokens long: up to 60 keys do not show where it ends"):
        check_attention(attn, resolved(text), max_keys=60, examples=3)
