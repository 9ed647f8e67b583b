"""Checks the statements of one pattern or model: which may stand there, how often, and what they say.

Invariant: what comes back has every statement that could be understood, so that later checks miss little.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import assert_never

from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.model import InternalError
from sparsec.diagnostics.source import Span
from sparsec.sema.checked import Arm, CheckedModel, CheckedPattern
from sparsec.sema.checks.expressions import check, check_decimal
from sparsec.sema.checks.inputs import declare, with_tile
from sparsec.sema.checks.scope import Parameter, Scope, error, expect, reserved, unknown_name
from sparsec.sema.model import Documents
from sparsec.sema.modifiers import ENTRIES, Takes
from sparsec.sema.node import Depends, Node, Type
from sparsec.syntax import tree

KEYWORD: dict[type[tree.Statement], str] = {
    tree.HeadsStatement: "heads",
    tree.BlockStatement: "block",
    tree.CausalStatement: "causal",
    tree.DocumentsStatement: "documents",
    tree.AttendStatement: "attend",
    tree.LetStatement: "let",
    tree.InputStatement: "input",
    tree.ScaleStatement: "scale",
    tree.LayersStatement: "layers",
    tree.UseStatement: "use",
}
"""Of every statement but a modifier of the score, which says it."""
REPEATABLE = ("attend", "let", "input", "use")
IN_MODEL = ("layers", "let", "use")
IN_PATTERN = (*(keyword for keyword in KEYWORD.values() if keyword not in ("layers", "use")), *ENTRIES)
PARAMETER_TYPES = (
    *(Type.INTEGER, Type.BLOCKS, Type.BOOLEAN, Type.LIST, Type.BLOCK_LIST, Type.DECIMAL_LIST),
    *(Type.RANGE, Type.BLOCK_RANGE),
)
CONSTANT = Depends.NOTHING
IN_ARMS = Depends.HEAD | Depends.GROUP | Depends.COUNTS | Depends.BLOCK
IN_LAYERS = Depends.LAYER | Depends.LAYERS


def keyword_of(statement: tree.Statement) -> str:
    """The word that names a statement."""
    return statement.keyword if isinstance(statement, tree.ModifierStatement) else KEYWORD[type(statement)]


def check_definition(name: tree.Name, what: str, taken: dict[str, Span], scope: Scope) -> bool:
    """Whether `name` may be defined here; `taken` are the names of the same item, and gains this one."""
    if name.text in reserved():
        scope.report(codes.RESERVED_NAME.at(scope.source, name.span, name=name.text, what=what))
        return False
    if name.text in taken:
        line = scope.source.line_of(taken[name.text].start)
        scope.report(codes.DUPLICATE_NAME.at(scope.source, name.span, name=name.text, line=line))
        return False
    taken[name.text] = name.span
    return True


def check_parameter(parameter: tree.Parameter, scope: Scope) -> Parameter:
    """A parameter, its type that of its default."""
    default = check(parameter.default, scope)
    if default.type is not Type.UNKNOWN and default.type not in PARAMETER_TYPES:
        name, actual = parameter.name.text, default.type.value
        scope.report(codes.PARAMETER_TYPE.at(scope.source, parameter.default.span, name=name, actual=actual))
        default = error(parameter.default.span)
    return Parameter(parameter.name.text, default.type, default)


def check_parameters(
    parameters: Iterable[tree.Parameter], taken: dict[str, Span], scope: Scope
) -> tuple[Parameter, ...]:
    """The parameters of an item, each visible to those after it and, through `scope.names`, to the statements."""
    found = []
    for parameter in parameters:
        checked = check_parameter(parameter, replace(scope, available=CONSTANT, where="in the default of a parameter"))
        if check_definition(parameter.name, "parameter", taken, scope):
            found.append(checked)
            scope.names[checked.name] = Node("param", checked.type, parameter.name.span, value=checked.name)
    return tuple(found)


def check_pattern(
    item: tree.PatternItem, parameters: tuple[Parameter, ...], taken: dict[str, Span], scope: Scope
) -> CheckedPattern:
    """A pattern's statements; `scope` holds its parameters, and gains its inputs and lets."""
    statements = tuple(_allowed(item.statements, "pattern", IN_PATTERN, scope))
    once = _given_once(statements, scope)
    inputs = declare(_inputs(statements, taken, scope), scope)
    values: dict[type[tree.Statement], tuple[Node, ...]] = {}
    modifiers: dict[str, Node | None] = {}
    lets: list[Node] = []
    arms: list[Arm] = []
    here = _with_later_lets(replace(scope, available=IN_ARMS, where="in a pattern"), statements, taken)
    for statement in statements:
        constant = replace(here, available=CONSTANT, where=f"in `{keyword_of(statement)}`")
        match statement:
            case tree.AttendStatement():
                body = check(statement.term, here)
                expect(body, (Type.TERM,), "what `attend` names", here)
                arms.append(_arm(statement, body, here))
            case tree.LetStatement():
                lets.append(_let(statement, taken, here))
            case tree.HeadsStatement():
                counts = [statement.heads] if statement.kv_heads is None else [statement.heads, statement.kv_heads]
                values.setdefault(type(statement), tuple(_integer(count, "a head count", constant) for count in counts))
            case tree.BlockStatement():
                values.setdefault(type(statement), (_integer(statement.size, "the block size", constant),))
            case tree.ScaleStatement():
                values.setdefault(type(statement), (check_decimal(statement.value, constant),))
            case tree.ModifierStatement(keyword, given):
                modifiers.setdefault(keyword, None if given is None else _modifier(keyword, given, constant))
            case tree.InputStatement(name, kind):
                if name.span in inputs:
                    inputs[name.span] = with_tile(inputs[name.span], kind, constant)
            case tree.CausalStatement() | tree.DocumentsStatement():
                pass
            case tree.LayersStatement() | tree.UseStatement():
                raise InternalError(f"expected no {keyword_of(statement)} in a pattern: it has been reported")
            case _:
                assert_never(statement)
    if not any(isinstance(statement, tree.AttendStatement) for statement in item.statements):
        scope.report(codes.NO_ATTEND.at(scope.source, item.name.span, name=item.name.text))
    _check_arms([statement for statement in statements if isinstance(statement, tree.AttendStatement)], scope)
    heads = values.get(tree.HeadsStatement, ())
    documents = next((statement for statement in statements if isinstance(statement, tree.DocumentsStatement)), None)
    return CheckedPattern(
        name=item.name.text,
        span=item.name.span,
        parameters=parameters,
        statements=once,
        heads=heads[0] if heads else None,
        kv_heads=heads[1] if len(heads) == 2 else None,
        block=values.get(tree.BlockStatement, (None,))[0],
        documents=_documents(documents),
        inputs=tuple(inputs.values()),
        lets=tuple(lets),
        arms=tuple(arms),
        scale=values.get(tree.ScaleStatement, (None,))[0],
        modifiers={keyword: modifiers[keyword] for keyword in ENTRIES if keyword in modifiers},
        references=_references([arm.body for arm in arms]),
    )


def check_model(item: tree.ModelItem, scope: Scope) -> CheckedModel:
    """A model's parameters and statements."""
    taken: dict[str, Span] = {}
    parameters = check_parameters(item.parameters, taken, scope)
    statements = tuple(_allowed(item.statements, "model", IN_MODEL, scope))
    _given_once(statements, scope)
    lets: list[Node] = []
    arms: list[Arm] = []
    layers: Node | None = None
    here = _with_later_lets(replace(scope, available=IN_LAYERS, where="in a model"), statements, taken)
    for statement in statements:
        match statement:
            case tree.LayersStatement():
                constant = replace(here, available=CONSTANT, where="in `layers`")
                count = _integer(statement.layers, "the number of layers", constant)
                layers = count if layers is None else layers
            case tree.LetStatement():
                lets.append(_let(statement, taken, here))
            case tree.UseStatement():
                arms.append(_arm(statement, _used(statement.pattern, here), here))
            case _:
                pass
    if not any(isinstance(statement, tree.UseStatement) for statement in item.statements):
        scope.report(codes.NO_USE.at(scope.source, item.name.span, name=item.name.text))
    _check_arms([statement for statement in statements if isinstance(statement, tree.UseStatement)], scope)
    return CheckedModel(item.name.text, item.name.span, parameters, layers, tuple(lets), tuple(arms))


def _allowed(
    statements: Iterable[tree.Statement], item: str, allowed: tuple[str, ...], scope: Scope
) -> Iterator[tree.Statement]:
    for statement in statements:
        keyword = keyword_of(statement)
        if keyword in allowed:
            yield statement
        else:
            span = _lead(statement) if keyword in ("attend", "use") else _word(statement, keyword)
            scope.report(
                codes.MISPLACED_STATEMENT.at(
                    scope.source, span, statement=keyword, item=item, allowed=", ".join(allowed)
                )
            )


def _given_once(statements: tuple[tree.Statement, ...], scope: Scope) -> dict[str, Span]:
    """The first of each statement that may be given once, by its keyword; reports the others."""
    first: dict[str, Span] = {}
    for statement in statements:
        keyword = keyword_of(statement)
        if keyword in REPEATABLE:
            continue
        if keyword in first:
            line = scope.source.line_of(first[keyword].start)
            scope.report(
                codes.DUPLICATE_STATEMENT.at(scope.source, _word(statement, keyword), statement=keyword, line=line)
            )
        else:
            first[keyword] = statement.span
    return first


def _inputs(
    statements: tuple[tree.Statement, ...], taken: dict[str, Span], scope: Scope
) -> tuple[tree.InputStatement, ...]:
    """The declarations of inputs whose names are free, which `taken` gains."""
    given = (statement for statement in statements if isinstance(statement, tree.InputStatement))
    return tuple(statement for statement in given if check_definition(statement.name, "input", taken, scope))


def _with_later_lets(scope: Scope, statements: tuple[tree.Statement, ...], taken: dict[str, Span]) -> Scope:
    lets = {statement.name.text for statement in statements if isinstance(statement, tree.LetStatement)}
    return replace(scope, later=frozenset(lets - taken.keys() - reserved()))


def _let(statement: tree.LetStatement, taken: dict[str, Span], scope: Scope) -> Node:
    value = check(statement.value, scope)
    if check_definition(statement.name, "let", taken, scope):
        scope.names[statement.name.text] = value
    return value


def _modifier(keyword: str, given: tree.Expr, scope: Scope) -> Node:
    """What a modifier's statement gives: a number, a list of decimals, or an input; integers are decimals too."""
    takes = ENTRIES[keyword].takes
    if takes is Takes.NUMBER:
        return check_decimal(given, scope)
    node = check(given, scope)
    if takes is Takes.INPUT:
        hint = "name an input that is declared as `input name : weights`"
        return node if expect(node, (Type.WEIGHTS,), f"what `{keyword}` names", scope, hint) else error(node.span)
    if node.type is Type.LIST or expect(node, (Type.DECIMAL_LIST,), f"what `{keyword}` takes", scope):
        return node
    return error(node.span)


def _integer(expr: tree.Expr, role: str, scope: Scope) -> Node:
    node = check(expr, scope)
    return node if expect(node, (Type.INTEGER,), role, scope) else error(node.span)


def _arm(statement: tree.AttendStatement | tree.UseStatement, body: Node, scope: Scope) -> Arm:
    condition = None
    head = _lead(statement)
    if statement.condition is not None:
        condition = check(statement.condition, scope)
        head = condition.span
        if not expect(condition, (Type.BOOLEAN,), "a condition", scope):
            condition = error(condition.span)
    return Arm(condition, body, head)


def _used(pattern: tree.Name | tree.Call, scope: Scope) -> Node:
    name = pattern if isinstance(pattern, tree.Name) else pattern.callee
    if name.text not in scope.patterns:
        only_patterns = replace(scope, names={}, later=frozenset(), available=CONSTANT)
        hint = scope.suggestion(name.text, tuple(scope.patterns))
        if hint is not None:
            scope.report(codes.UNKNOWN_NAME.at(scope.source, name.span, hint=hint, what="pattern", name=name.text))
            return error(pattern.span)
        return unknown_name(name, only_patterns, "pattern")
    return check(pattern, replace(scope, names={key: value for key, value in scope.names.items() if key != name.text}))


def _check_arms(arms: list[tree.AttendStatement] | list[tree.UseStatement], scope: Scope) -> None:
    def line(statement: tree.Statement) -> int:
        return scope.source.line_of(statement.span.start)

    otherwise = next((arm for arm in arms if arm.otherwise), None)
    bare = [arm for arm in arms if arm.condition is None and not arm.otherwise]
    if bare and len(arms) > 1:
        verb = keyword_of(bare[0])
        both_bare = len(bare) > 1
        culprit = bare[1] if both_bare else bare[0]
        other = bare[0] if both_bare else next(arm for arm in arms if arm is not culprit)
        join = "join the two with `|`" if verb == "attend" else "keep one of the two"
        action = join if both_bare else f"write `where ... {verb}` or `otherwise {verb}` here"
        scope.report(
            codes.BARE_AND_ARMS.at(scope.source, _word(culprit, verb), verb=verb, line=line(other), action=action)
        )
    elif otherwise is not None:
        for arm in arms[arms.index(otherwise) + 1 :]:  # type: ignore[arg-type]  # the list's element type is the arm's
            if arm.otherwise:
                scope.report(codes.TWO_OTHERWISE.at(scope.source, _lead(arm), line=line(otherwise)))
            else:
                scope.report(codes.AFTER_OTHERWISE.at(scope.source, _lead(arm)))


def _lead(statement: tree.Statement) -> Span:
    """The first word of an arm: `where`, `otherwise`, `attend` or `use`."""
    assert isinstance(statement, tree.AttendStatement | tree.UseStatement)
    word = "otherwise" if statement.otherwise else "where" if statement.condition else keyword_of(statement)
    return _word(statement, word)


def _word(statement: tree.Statement, word: str) -> Span:
    return Span(statement.span.start, statement.span.start + len(word))


def _documents(statement: tree.DocumentsStatement | None) -> Documents:
    if statement is None:
        return Documents.NONE
    return Documents.RESTART if statement.restart else Documents.SEPARATE


def _references(roots: list[Node]) -> tuple[Node, ...]:
    """Every `pattern` Node under `roots`, each once, in the order of the text."""
    found: list[Node] = []
    seen: set[int] = set()
    pending = list(reversed(roots))
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.op == "pattern":
            found.append(node)
        pending.extend(arg for arg in reversed(node.args) if arg is not None)
    return tuple(found)
