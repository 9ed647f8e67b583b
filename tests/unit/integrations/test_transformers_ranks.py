"""A model whose sequences several processes hold: logits, loss and two steps of training, as in one process."""

from __future__ import annotations

import copy
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))
from together import run

import sparsec
from sparsec.integrations.transformers import apply

pytestmark = pytest.mark.kernels

TEXT = """
pattern near { causal  attend sink(4) | window(20) }
pattern all { causal  attend full }
model m { layers 2  where l == 0 use near  otherwise use all }
"""


def model_of(seed: int) -> Any:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_hidden_layers=2, **sizes)).double()


def two_steps(model: Any, whole: Any) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for tokens, labels in whole:
        optimizer.zero_grad()
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


class SameBatches(Trainer):  # type: ignore[misc]  # transformers is not looked into
    """A Trainer whose ranks all get every batch; by itself each would get batches of its own."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, self.args.per_device_train_batch_size, collate_fn=self.data_collator)


def steps_of_trainer(model: Any, folder: str) -> list[torch.Tensor]:
    """The weights after two steps."""
    generator = torch.Generator().manual_seed(2)
    data = []
    for _ in range(4):
        tokens = torch.randint(50, (81,), generator=generator)
        data.append({"input_ids": tokens, "labels": tokens.where(torch.arange(81) > 30 * len(data), -100)})
    options: dict[str, Any] = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    steps: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 2, "lr_scheduler_type": "constant"}
    asked = TrainingArguments(folder, learning_rate=0.5, optim="sgd", max_grad_norm=0.0, **steps, **options)
    SameBatches(model, asked, train_dataset=data).train()
    return [each.detach().clone() for each in model.parameters()]


def trained_by_trainer(expected: list[torch.Tensor], folder: str) -> None:
    rank, ranks = str(dist.get_rank()), str(dist.get_world_size())
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}  # Accelerate looks at them; the group is there
    model = apply(model_of(0), TEXT, target="torch", context_parallel=dist.group.WORLD)
    for theirs, mine in zip(expected, steps_of_trainer(model, folder), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def trained(of_trainer: list[torch.Tensor] | None, folder: str) -> None:
    generator = torch.Generator().manual_seed(1)
    whole = []
    for length in (90, 77):
        tokens = torch.randint(50, (2, length), generator=generator)
        labels = tokens.clone()
        labels[0, : length // 3] = -100  # of few tokens on the first ranks
        whole.append((tokens, labels))
    one = apply(model_of(0), TEXT, target="torch")
    ours = apply(copy.deepcopy(model_of(0)), TEXT, target="torch", context_parallel=dist.group.WORLD)
    with torch.no_grad():
        expected, found = one(input_ids=whole[0][0]).logits, ours(input_ids=whole[0][0]).logits
        held = ours.model._sparsec.ranks._dealt[90]
    torch.testing.assert_close(found, held.shard(expected, 1), rtol=1e-9, atol=1e-9)
    losses = torch.tensor(two_steps(DistributedDataParallel(ours), whole))
    dist.all_reduce(losses)
    torch.testing.assert_close(losses / dist.get_world_size(), torch.tensor(two_steps(one, whole)))
    for theirs, mine in zip(one.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)
    refused(ours, whole[0][0])
    if of_trainer is not None:
        trained_by_trainer(of_trainer, folder)


def refused(model: Any, tokens: torch.Tensor) -> None:
    with pytest.raises(sparsec.CallError, match="expected no padding where ranks hold a sequence together"):
        model(input_ids=tokens, attention_mask=torch.zeros_like(tokens))
    with pytest.raises(sparsec.CallError, match="expected at least as many tokens as ranks"):
        model(input_ids=tokens[:, :1])
    with pytest.raises(sparsec.CallError, match="expected the same tokens and labels on every rank, got others on 1"):
        model(input_ids=(tokens + (dist.get_rank() == 1)) % 50)
    with pytest.raises(sparsec.CallError, match="expected no cache where ranks hold a sequence together"):
        model.generate(tokens, max_new_tokens=2, do_sample=False)


def test_two_steps_of_training(tmp_path: Path) -> None:
    """By a plain loop and, where Accelerate is installed, by transformers' Trainer, which wants it."""
    of_trainer = None
    if find_spec("accelerate") is not None:
        of_trainer = steps_of_trainer(apply(model_of(0), TEXT, target="torch"), str(tmp_path))
        assert not any(map(torch.equal, of_trainer, model_of(0).parameters()))
    run(trained, 4, of_trainer, str(tmp_path))
