"""The static phase: a syntax tree becomes a CheckedFile, with every problem of names, types and structure reported.

Invariant: file parameters and patterns are checked in an order in which each follows what it names; what lies on
a cycle is reported once and taken as unknown. networkx, which takes longer to import than most files to check, is
imported for files whose items name one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.model import Diagnostic
from sparsec.diagnostics.source import Span
from sparsec.sema.checked import CheckedFile, CheckedModel, CheckedPattern
from sparsec.sema.checks.agree import merged
from sparsec.sema.checks.items import (
    CONSTANT,
    check_definition,
    check_model,
    check_parameter,
    check_parameters,
    check_pattern,
)
from sparsec.sema.checks.scope import Parameter, Scope, Signature, error
from sparsec.sema.model import InputKind
from sparsec.sema.node import Depends, Node
from sparsec.syntax import tree
from sparsec.syntax.limits import expressions, parts


def check_structure(file: tree.File, found: list[Diagnostic]) -> CheckedFile:
    """The checked file; problems are appended to `found`."""
    scope = Scope(file.source, found.append, "in the default of a parameter", CONSTANT)
    items = _named_items(file, scope)
    parameters = _file_parameters(items, scope)
    names = {
        name: Node("file_param", parameter.type, parameter.default.span, value=name)
        for name, parameter in parameters.items()
    }
    pattern_items = {name: item for name, item in items.items() if isinstance(item, tree.PatternItem)}
    if not any(isinstance(item, tree.PatternItem) for item in file.items):
        found.append(codes.NO_PATTERN.at(file.source, Span(0, min(1, len(file.source.text)))))
    signatures: dict[str, Signature | None] = dict.fromkeys(pattern_items)
    patterns: dict[str, CheckedPattern] = {}
    uses = {name: tuple(_used_names(item)) for name, item in pattern_items.items()}
    for name in _in_order(uses, scope):
        pattern_item = pattern_items[name]
        local = replace(scope, names=dict(names), patterns=signatures)
        taken: dict[str, Span] = {}
        item_parameters = check_parameters(pattern_item.parameters, taken, replace(local, patterns={}))
        checked = check_pattern(pattern_item, item_parameters, taken, local)
        patterns[name] = replace(merged(checked, patterns, scope), name=name)
        signatures[name] = _signature(patterns[name])
    models: dict[str, CheckedModel] = {}
    for name, item in items.items():
        if isinstance(item, tree.ModelItem):
            models[name] = check_model(item, replace(scope, names=dict(names), patterns=signatures))
    in_file_order = {name: patterns[name] for name in pattern_items}
    if not found:
        for name, item in pattern_items.items():
            _unused_inputs(item, patterns[name], patterns, scope)
    return CheckedFile(file.source, parameters, in_file_order, models)


def _named_items(file: tree.File, scope: Scope) -> dict[str, tree.Item]:
    """Items by name; a second one of the same name is still checked, under a name that nothing can write."""
    items: dict[str, tree.Item] = {}
    taken: dict[str, Span] = {}
    for position, item in enumerate(file.items):
        if isinstance(item, tree.ImportItem):
            if item.alias is not None:
                check_definition(item.alias, "import", taken, scope)
            continue
        name = item.defined
        what = {tree.ParamItem: "parameter", tree.PatternItem: "pattern", tree.ModelItem: "model"}[type(item)]
        defined = check_definition(name, what, taken, scope)
        items[name.text if defined else f"{name.text} ({position})"] = item
    return items


def _file_parameters(items: Mapping[str, tree.Item], scope: Scope) -> dict[str, Parameter]:
    defaults = {name: item.parameter for name, item in items.items() if isinstance(item, tree.ParamItem)}
    uses = {name: tuple(_names(parameter.default)) for name, parameter in defaults.items()}
    found: dict[str, Parameter] = {}
    known: dict[str, Node] = {name: error(parameter.name.span) for name, parameter in defaults.items()}
    for name in _in_order(uses, scope):
        found[name] = replace(check_parameter(defaults[name], replace(scope, names=known)), name=name)
        known[name] = Node("file_param", found[name].type, defaults[name].name.span, value=name)
    return found


def _in_order(uses: Mapping[str, tuple[tree.Name, ...]], scope: Scope) -> Iterator[str]:
    """The names, each after those that it uses; cycles are reported, and broken at their first name in the file."""
    edges = [(used.text, name) for name, names in uses.items() for used in names if used.text in uses]
    if not edges:
        return iter(uses)
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(uses)
    graph.add_edges_from(edges)
    position = {name: index for index, name in enumerate(uses)}
    for component in nx.strongly_connected_components(graph):
        first = min(component, key=position.__getitem__)
        if len(component) == 1 and not graph.has_edge(first, first):
            continue
        inside = graph.subgraph(component).reverse()
        step = min((used for used in inside.successors(first)), key=position.__getitem__)
        path = [first, *nx.shortest_path(inside, step, first)]
        culprit = next(used for used in uses[first] if used.text == step)
        shown = " -> ".join(f"`{name}`" for name in (path if len(path) <= 8 else [*path[:7], "...", path[-1]]))
        scope.report(codes.CYCLE.at(scope.source, culprit.span, name=first, path=shown))
        graph.remove_edges_from([(left, right) for left, right in graph.edges(component) if right in component])
    return iter(nx.lexicographical_topological_sort(graph, key=position.__getitem__))


def _used_names(item: tree.PatternItem) -> Iterator[tree.Name]:
    """The names in a pattern's statements that its own definitions do not hide."""
    own = {parameter.name.text for parameter in item.parameters}
    own |= {s.name.text for s in item.statements if isinstance(s, tree.LetStatement | tree.InputStatement)}
    for statement in item.statements:
        for expr in _evaluated(statement):
            yield from (name for name in _names(expr) if name.text not in own)


def _evaluated(statement: tree.Statement) -> tuple[tree.Expr, ...]:
    """The expressions of a pattern's statement; a word such as in `columns(blocks)` is none."""
    match statement:
        case tree.UseStatement():
            return ()
        case tree.InputStatement(_, kind):
            of_tile = isinstance(kind, tree.Call) and kind.callee.text == InputKind.BLOCKS.value
            return expressions(statement) if of_tile else ()
    return expressions(statement)


def _unused_inputs(
    item: tree.PatternItem, pattern: CheckedPattern, patterns: Mapping[str, CheckedPattern], scope: Scope
) -> None:
    used = {name.text for statement in item.statements for expr in _evaluated(statement) for name in _names(expr)}
    used |= {given.name for reference in pattern.references for given in patterns[str(reference.value)].inputs}
    for given in pattern.inputs:
        if given.name not in used:
            scope.report(codes.UNUSED_INPUT.at(scope.source, given.span, name=given.name, pattern=pattern.name))


def intact(file: tree.File) -> frozenset[str]:
    """The names of patterns that the parser read in full, with all items that they use, directly or through others."""
    uses: dict[str, set[str]] = {}
    for item in file.items:
        if isinstance(item, tree.ModelItem | tree.ImportItem):
            continue
        used = uses.setdefault(item.defined.text, set())
        if isinstance(item, tree.ParamItem):
            used.update(name.text for name in _names(item.parameter.default))
        else:
            used.update(name.text for name in _used_names(item))
            used.update(name.text for parameter in item.parameters for name in _names(parameter.default))
    broken = {item.defined.text for item in file.items if item.broken and item.defined is not None} & uses.keys()
    if not broken:
        return frozenset(uses)
    import networkx as nx

    graph = nx.DiGraph([(used, name) for name, names in uses.items() for used in names])
    graph.add_nodes_from(uses)
    return frozenset(uses.keys() - broken.union(*(nx.descendants(graph, name) for name in broken)))


def _names(root: tree.Expr) -> Iterator[tree.Name]:
    pending = [root]
    while pending:
        expr = pending.pop()
        if isinstance(expr, tree.Name):
            yield expr
        elif isinstance(expr, tree.Call):
            yield expr.callee
        pending.extend(reversed(parts(expr)))


def _signature(pattern: CheckedPattern) -> Signature:
    depends, depth = Depends.NOTHING, 1
    for arm in pattern.arms:
        for node in (arm.condition, arm.body):
            if node is not None:
                depends |= node.depends
                depth = max(depth, node.depth)
    varying = Depends.HEAD | Depends.GROUP | Depends.COUNTS
    return Signature(pattern.name, pattern.parameters, depends & varying, depth)
