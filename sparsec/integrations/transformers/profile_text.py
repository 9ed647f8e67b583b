"""What each layer recovers by each policy -> the cheapest that recovers enough, and a model that says so.

Invariant: the text is laid out as `sparsec fmt` does it, and parses to a model of as many layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.diagnostics.model import DiagnosticError
from sparsec.diagnostics.source import SourceFile
from sparsec.integrations.transformers.recovery import FULL, FastGen, LayerRecovery, Policy, StreamingHeads
from sparsec.sema.arms import alike, among, layer_arms
from sparsec.sema.printer import head_ranges
from sparsec.syntax.parser import parse
from sparsec.syntax.printer import print_file

INPUTS = ("special", "punctuation", "frequent")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The policy of a KV group, the mass that it recovers, the bytes of the prompts' keys and values that it holds."""

    policy: Policy
    recovered: float
    nbytes: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Of a prompt of `length` tokens. layers: what is chosen for each KV group. dense_bytes: of all that is
    in the prompts."""

    method: FastGen | StreamingHeads
    recovery: float
    length: int
    heads: int
    layers: tuple[tuple[Chosen, ...], ...]
    dense_bytes: int

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for groups in self.layers for each in groups)

    @property
    def summary(self) -> str:
        chosen = [each for groups in self.layers for each in groups]
        full = sum(each.policy is FULL for each in chosen)
        share = self.nbytes / self.dense_bytes
        return (
            f"{full} of the {len(chosen)} KV groups see everything; all together hold {share:.1%} of the prompt's keys"
        )

    @property
    def text(self) -> str:
        """The model. Raises DiagnosticError where it is beyond the language's limits."""
        name = "fastgen" if isinstance(self.method, FastGen) else "streaming"
        made = SourceFile(f"<{name}>", "\n".join([*self._head(), *self._items(name), ""]))
        file, problems = parse(made)
        if file is None:
            raise DiagnosticError(problems)
        return print_file(file)

    def _head(self) -> list[str]:
        """The comment, and the file's parameters."""
        used = {each.policy.attends for groups in self.layers for each in groups}
        needs = {word for attends in used for word in attends.replace("(", " ").replace(")", " ").split()}
        share = f"{self.recovery:.6%}".rstrip("%").rstrip("0").rstrip(".")
        what = f"# Of each KV group the fewest keys that have {share}% of its attention to {self.length} tokens."
        match self.method:
            case FastGen(special, punctuation):
                lines = ["# FastGen (arXiv 2310.01801).", what, f"# {self.summary}.", ""]
                for name, ids in (("special", special), ("punctuation", punctuation)):
                    lines += [f"param {name}_ids = [{head_ranges(ids)}]"] if name in needs else []
                most, latest = self.method.most(self.length), self.method.latest(self.length)
                lines += [f"param frequent_keys = {most}"] if "frequent" in needs else []
            case StreamingHeads(sink, latest):
                lines = ["# Streaming heads, as of DuoAttention (arXiv 2410.10819).", what, f"# {self.summary}.", ""]
                lines += [f"param first = {sink}"] if "first" in needs else []
        return [*lines, *([f"param latest = {latest}"] if "latest" in needs else []), ""]

    def _items(self, name: str) -> list[str]:
        """A pattern for each kind of layer, called after the first of the kind, and the model."""
        kinds = alike(tuple(each.policy for each in groups) for groups in self.layers)
        lines: list[str] = []
        for policies, layers in kinds.items():
            terms = {word for policy in policies for word in policy.attends.split()}
            lines += [f"pattern layer_{layers[0]} {{", f"    heads {self.heads} kv {len(policies)}"]
            lines += [f"    input {each} : tokens" for each in INPUTS if each in terms]
            lines += ["    causal", *_arms(policies), "}", ""]
        uses = {f"layer_{layers[0]}": layers for layers in kinds.values()}
        return [*lines, f"model {name} {{", f"    layers {len(self.layers)}", *layer_arms(uses), "}"]


def _arms(policies: tuple[Policy, ...]) -> list[str]:
    arms = alike(policies)
    if len(arms) == 1:
        return [f"    attend {policies[0].attends}"]
    return [f"    where {among('g', groups)} attend {policy.attends}" for policy, groups in arms.items()]


def chosen_policies(
    method: FastGen | StreamingHeads, recovery: float, length: int, heads: int, layers: Sequence[LayerRecovery]
) -> Profile:
    """Of each KV group the first policy that recovers enough. Each key has some of a soft-max's mass, so that a
    recovery of 1 is that of everything alone, whatever rounding says."""
    policies = (*method.policies, FULL)
    chosen = []
    for layer in layers:
        groups = []
        for group in range(layer.recovered.shape[1]):
            mass = layer.recovered[:, group].tolist()
            place = next(n for n, each in enumerate(mass) if n == len(mass) - 1 or (each >= recovery and recovery < 1))
            groups.append(Chosen(policies[place], mass[place], int(layer.keys[place, group]) * layer.bytes_a_key))
        chosen.append(tuple(groups))
    dense = sum(int(layer.keys[-1].sum()) * layer.bytes_a_key for layer in layers)
    return Profile(method, recovery, length, heads, tuple(chosen), dense)
