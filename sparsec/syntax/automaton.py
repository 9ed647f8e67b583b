"""Tokens -> what the rules' callbacks make of them: the LALR automaton of the grammar's tables, and its two stacks.

Invariant: `feed` changes the stacks exactly if `accepts` says that it takes the token. A reduction that only renames
what lies on the stack, as from `atom` up to the operator at hand, costs nothing: a run of them is one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lark import Token
from lark.grammar import Rule
from lark.parsers.lalr_analysis import Shift

from sparsec.syntax.lexer import END, grammar


@dataclass(frozen=True, slots=True, eq=False)
class _Reduction:
    """Takes `size` symbols off the stacks and puts what `callback` makes of them there as a `rule`."""

    rule: str
    size: int
    callback: Callable[[Sequence[Any]], Any]
    renames: bool  # one symbol, whose value stays


@dataclass(frozen=True, slots=True)
class _Tables:
    """Lark's tables: what each state does at a terminal (a number is the next state), and where it goes after a rule.

    `renamed` is filled as texts are read: the state on top after a run of renaming reductions, by the state below, the
    state on top and the terminal ahead.
    """

    actions: Mapping[int, Mapping[str, int | _Reduction]]
    gotos: Mapping[int, Mapping[str, int]]
    start: int
    end: int
    renamed: dict[tuple[int, int, str], int] = field(default_factory=dict)

    def rename(self, below: int, state: int, kind: str) -> int:
        """The entry of `renamed`."""
        found = state
        while isinstance(action := self.actions[found].get(kind), _Reduction) and action.renames:
            found = self.gotos[below][action.rule]
        self.renamed[below, state, kind] = found
        return found


@cache
def _tables() -> _Tables:
    conf = grammar().parse_interactive().parser_state.parse_conf
    callbacks: Mapping[Any, Callable[[Sequence[Any]], Any]] = conf.callbacks

    @cache
    def reduction(rule: Rule) -> _Reduction:
        renames = len(rule.expansion) == 1 and bool(rule.options.expand1) and not rule.alias
        return _Reduction(rule.origin.name, len(rule.expansion), callbacks[rule], renames)

    actions: dict[int, dict[str, int | _Reduction]] = {}
    gotos: dict[int, dict[str, int]] = {}
    for state, row in conf.states.items():
        actions[state], gotos[state] = {}, {}
        for name, (kind, target) in row.items():
            if name.islower():
                gotos[state][name] = target
            else:
                actions[state][name] = target if kind is Shift else reduction(target)
    return _Tables(actions, gotos, conf.start_state, conf.end_state)


class Automaton:
    """Holds the start state, then one state and one value for each symbol read."""

    def __init__(self) -> None:
        self._tables = _tables()
        self._states = [self._tables.start]
        self._values: list[Any] = []

    def _row(self) -> Mapping[str, int | _Reduction]:
        return self._tables.actions[self._states[-1]]

    def accepted(self) -> frozenset[str]:
        """The terminals that `feed` would take."""
        return frozenset(filter(self.accepts, self._row()))

    def accepts(self, *kinds: str) -> bool:
        """Whether `feed` would take tokens of these kinds one after the other."""
        action = self._row().get(kinds[0])
        if action is None or (len(kinds) == 1 and isinstance(action, int)):
            return action is not None
        taken, _, kept, above = self._run(kinds)
        self._states[kept:] = reversed(above)
        return taken

    def feed(self, token: Token) -> bool:
        """Reads the token if it is accepted; whether it is."""
        if token.type not in self._row():
            return False
        taken, reductions, kept, above = self._run((token.type,))
        if not taken:
            self._states[kept:] = reversed(above)
            return False
        values = self._values
        for reduction in reductions:
            first = len(values) - reduction.size
            values[first:] = [reduction.callback(values[first:])]
        if token.type != END:
            values.append(token)
        return True

    def result(self) -> Any:
        """What was made of the whole text, once its end was fed."""
        assert self._states[-1] == self._tables.end, "the end of the text was read"
        return self._values[-1]

    def cut(self, rule: str) -> None:
        """Drops what was read since the last state in which a `rule` may start."""
        while rule not in self._tables.gotos[self._states[-1]]:
            self._states.pop()
            self._values.pop()

    def _run(self, kinds: Sequence[str]) -> tuple[bool, list[_Reduction], int, list[int]]:
        """Moves the states alone over tokens of these kinds: whether they are all taken, and the reductions made.

        The last two say what to undo: how many states are as they were, and what lay above them, topmost first.
        """
        tables, states = self._tables, self._states
        actions, gotos, renamed = tables.actions, tables.gotos, tables.renamed
        kept, above = len(states), list[int]()
        made: list[_Reduction] = []
        for kind in kinds:
            while True:
                if len(states) > 1:
                    if kept == len(states):
                        kept -= 1
                        above.append(states[-1])
                    below, top = states[-2:]
                    found = renamed.get((below, top, kind))
                    states[-1] = tables.rename(below, top, kind) if found is None else found
                action = actions[states[-1]].get(kind)
                if action is None:
                    return False, made, kept, above
                if isinstance(action, int):
                    states.append(action)
                    break
                made.append(action)
                left = len(states) - action.size
                if left < kept:
                    above.extend(reversed(states[left:kept]))
                    kept = left
                del states[left:]
                states.append(gotos[states[-1]][action.rule])
                if states[-1] == tables.end:
                    return True, made, kept, above
        return True, made, kept, above
