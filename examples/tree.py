"""Verifies a tree of drafts in one forward of a Hugging Face model, and writes what greedy decoding writes.

An assistant proposes the likeliest few tokens, and for each of them the likeliest few after it. The model reads the
whole tree at once: `inputs/tree_verification.sparse` shows each draft the text, itself and the drafts that it follows.
The longest branch that the model agrees with stays. The cache takes the rest back, and the model's own next token
comes for free. Here the assistant is the model with noise in its weights, in place of a smaller one.

    python examples/tree.py                      a prompt of 512 tokens, 128 new ones
    python examples/tree.py --quick              some seconds: shows that it runs
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList, StoppingCriteriaList

from sparsec.integrations.transformers import SparseCache, apply

HERE = Path(__file__).parent
VOCABULARY = 256


@dataclass(frozen=True, slots=True)
class Tree:
    """Tokens of one forward, each with its parent among them, -1 where the text before comes next, and its depth."""

    tokens: list[int]
    parents: list[int]
    depths: list[int]

    @classmethod
    def chain(cls, tokens: list[int]) -> Tree:
        return cls(tokens, list(range(-1, len(tokens) - 1)), list(range(len(tokens))))

    def add(self, token: int, parent: int) -> int:
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        return len(self.tokens) - 1

    def child(self, node: int, token: int) -> int | None:
        """The draft after `node` that is `token`."""
        found = (n for n, parent in enumerate(self.parents) if parent == node and self.tokens[n] == token)
        return next(found, None)


@dataclass(slots=True)
class Drafts:
    """Gives the pattern its input, the parents of a forward's last tokens; counts the forwards and their tokens."""

    parents: Tensor = field(default_factory=lambda: torch.tensor([[-1]]))
    forwards: int = 0
    read: int = 0

    def __call__(self, layer: int, q: Tensor, k: Tensor) -> dict[str, Tensor]:
        return {"drafts": self.parents.to(q.device)}


def grow(assistant: LlamaForCausalLM, text: Tensor, tree: Tree, branches: Sequence[int]) -> None:
    """Adds drafts after the last token of a chain that ends `text` [1, N]: branches[d] of them at depth d, likeliest
    branch first, so that it lies in one run."""

    def deepen(node: int, path: Tensor, depth: int) -> None:
        for token in assistant(path).logits[0, -1].topk(branches[depth]).indices.tolist():
            child = tree.add(token, node)
            if depth + 1 < len(branches):
                deepen(child, torch.cat([path, torch.tensor([[token]])], dim=1), depth + 1)

    deepen(len(tree.tokens) - 1, text, 0)


@torch.no_grad()
def verify_trees(
    model: LlamaForCausalLM,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    assistant: LlamaForCausalLM,
    drafts: Drafts,
    branches: Sequence[int],
    **model_kwargs: Any,
) -> Tensor:
    """A `custom_generate` of transformers: greedy decoding of input_ids [1, N], by trees of drafts."""
    name, cache = next((name, each) for name, each in model_kwargs.items() if isinstance(each, SparseCache))

    def forward(tree: Tree, parents: list[int]) -> Tensor:
        drafts.parents = torch.tensor([parents])
        drafts.forwards, drafts.read = drafts.forwards + 1, drafts.read + len(tree.tokens)
        positions = cache.get_seq_length() + torch.tensor([tree.depths])
        return model(torch.tensor([tree.tokens]), position_ids=positions, use_cache=True, **{name: cache}).logits[0]

    text, held = input_ids, input_ids.shape[1] - 1  # tokens in the cache
    if held:
        forward(Tree.chain(text[0, :-1].tolist()), [-1])
    while True:
        tree = Tree.chain(text[0, held:].tolist())
        node, start = len(tree.tokens) - 1, len(tree.tokens)
        grow(assistant, text, tree, branches)
        logits = forward(tree, tree.parents)
        path: list[int] = []
        while True:
            scores = logits_processor(text, logits[node][None].float())
            text = torch.cat([text, scores.argmax(dim=1, keepdim=True)], dim=1)
            if bool(stopping_criteria(text, scores).all()):
                return text
            child = tree.child(node, int(text[0, -1]))
            if child is None:
                break
            path.append(child)
            node = child
        stay = next((n for n, place in enumerate(path) if place != start + n), len(path))
        held += start + stay
        cache.crop(held)  # drafts that stay but do not follow on are read again, before the next tree


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens to generate")
    parser.add_argument("--branches", default="3,2,1,1", help="drafts after each one, depth by depth")
    parser.add_argument("--noise", type=float, default=0.02, help="in the assistant's weights, of their deviation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a short prompt")
    return parser


def main() -> None:
    options = arguments().parse_args()
    if options.quick:
        options.prompt, options.new = 40, 24
    torch.manual_seed(options.seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    assistant = copy.deepcopy(model)
    with torch.no_grad():
        for weight in assistant.parameters():
            weight += options.noise * weight.std() * torch.randn_like(weight) if weight.dim() > 1 else 0
    branches, drafts = [int(each) for each in options.branches.split(",")], Drafts()
    apply(model, HERE / "inputs" / "tree_verification.sparse", inputs=drafts, rollback=64)
    prompt = torch.randint(1, VOCABULARY, (1, options.prompt))
    length = {"max_new_tokens": options.new, "do_sample": False}
    wanted = model.generate(prompt, **length)
    found = model.generate(
        prompt, custom_generate=verify_trees, assistant=assistant, drafts=drafts, branches=branches, **length
    )
    same = torch.equal(found, wanted)
    steps = drafts.forwards - 1
    print(
        f"{options.new} tokens in {steps} forwards of {(drafts.read - options.prompt + 1) / steps:.1f} tokens: "
        f"{options.new / steps:.2f} new ones each\n{'the same' if same else 'NOT the same'} as by greedy decoding"
    )
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
