"""Patterns whose run-time inputs, of every kind between them, are asked over pages."""

from __future__ import annotations

import sparsec
from sparsec.sema.model import ResolvedPattern

HEADS, KV_HEADS = 4, 2
TEXTS = {
    "lists and marks": """
        input picks : rows(blocks)  input kept : tokens  input weight : weights
        attend picks | kept & window(60) | sink(4) | window(20)
        key_bias weight
    """,
    "columns, slashes and cells": """
        input verticals : columns  input slashes : slashes(tiles)  input cells : blocks(24, 16)  input near : length
        attend verticals | slashes | cells | window(near)
    """,
    "drafts and labels": """
        input draft : tree  input spans : labels  input own : rows
        attend draft & (spans | own | sink(9) | window(30))
    """,
    "lists alone": "input own : rows  input picks : rows(blocks)  attend own | picks",
    "column blocks by head": """
        input verticals : columns(blocks)  input slashes : slashes
        attend verticals & window(80) | slashes - window(5) | stride(4b)
        learned_sink
    """,
}


def pattern(name: str) -> ResolvedPattern:
    text = f"pattern p {{ block 16  causal  {TEXTS[name]} }}"
    return sparsec.parse(text).pattern("p").resolve(heads=HEADS, kv_heads=KV_HEADS)


PATTERNS = {name: pattern(name) for name in TEXTS}
