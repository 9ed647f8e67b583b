"""Serves requests by transformers' continuous batching, with a model's own attention and with a pattern.

A random Llama answers prompts, greedily: with transformers' attention (SDPA), with the pattern `full`, which must give
the same tokens, and with sinks and a window, whose tokens must be those of its `generate()`. The table has the most
blocks that the requests held at once, and the time.

    python examples/batches.py                   16 prompts of 2,000 tokens, 32 new ones each: minutes
    python examples/batches.py --quick           some seconds: shows that it runs
"""

from __future__ import annotations

import argparse
import copy
import logging
import time
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import ContinuousBatchingConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM

from sparsec.integrations.transformers import apply

VOCABULARY, PAGE = 256, 16
DENSE = "pattern dense { causal attend full }"
STREAM = "pattern stream { causal attend sink(4) | window(256) }"


@dataclass(frozen=True, slots=True)
class Answers:
    """Of all requests: their tokens, the seconds that they took together, and the most blocks at once."""

    tokens: list[list[int]]
    seconds: float
    blocks: int


def serve(model: LlamaForCausalLM, prompts: list[list[int]], new: int) -> Answers:
    room = sum(-(-(len(each) + new) // PAGE) for each in prompts)
    settings = ContinuousBatchingConfig(
        page_size=PAGE, num_blocks=room, max_batch_tokens=256, allow_block_sharing=False
    )
    plan = GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=0)
    with model.continuous_batching_context_manager(
        generation_config=plan, continuous_batching_config=settings
    ) as manager:
        started, names = time.perf_counter(), manager.add_requests(prompts)
        done: dict[str, list[int]] = {}
        while len(done) < len(prompts):
            result: Any = manager.get_result(timeout=600)
            done[result.request_id] = result.generated_tokens
        seconds, most = time.perf_counter() - started, written(manager.batch_processor.cache)
    return Answers([done[name] for name in names], seconds, most)


def written(cache: Any) -> int:
    """The blocks that were ever written: as many as were held at once, for blocks given back are taken first."""
    blocks = cache.cache_tensor.view(-1, cache.bytes_per_sector)[2:]  # the first two are for padding
    return int(blocks.any(dim=1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=2000, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=32, help="tokens to generate for each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few and short prompts")
    options = parser.parse_args()
    if options.quick:
        options.requests, options.prompt, options.new = 3, 500, 8
    transformers.logging.set_verbosity_error()
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
    torch.manual_seed(options.seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=options.prompt + options.new,
        initializer_range=0.1,
        eos_token_id=None,
        pad_token_id=0,
    )
    own = LlamaForCausalLM(config).eval()
    patterns = {"full": DENSE, "sink(4) | window(256)": STREAM}
    models = {"SDPA": own} | {name: apply(copy.deepcopy(own), text) for name, text in patterns.items()}
    prompts = torch.randint(1, VOCABULARY, (options.requests, options.prompt)).tolist()
    answers = {}
    print(f"{'attention':24}{'blocks':>8}{'seconds':>10}")
    for name, model in models.items():
        serve(model, prompts[:1], 2)  # kernels are built
        answers[name] = found = serve(model, prompts, options.new)
        print(f"{name:24}{found.blocks:>8}{found.seconds:>10.1f}", flush=True)
    stream = models["sink(4) | window(256)"]
    ids = torch.tensor(prompts)
    alone = stream.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=options.new, do_sample=False)
    wanted = {"full": answers["SDPA"].tokens, "sink(4) | window(256)": alone[:, options.prompt :].tolist()}
    same = all(answers[name].tokens == tokens for name, tokens in wanted.items())
    print(f"the tokens are {'those' if same else 'NOT those'} of SDPA, and of generate()")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
