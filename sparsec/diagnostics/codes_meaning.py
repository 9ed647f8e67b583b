"""Every problem that `sema` can find: one `Code` each, made into a `Diagnostic` by `at` from the facts of the case.

Invariant: `MEANING_CODES` lists every Code of this module once, in order; a code's number never changes its meaning.
Messages state one fact in one sentence; hints give the action. The facts are formatted, never interpreted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.diagnostics.model import Diagnostic, Severity
from sparsec.diagnostics.source import SourceFile, Span


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of problem: its number, what it means (for the reference), and the templates of its message and hint."""

    code: str
    meaning: str
    message: str
    hint: str | None = None

    @property
    def severity(self) -> Severity:
        return Severity.WARNING if self.code.startswith("W") else Severity.ERROR

    def at(
        self, source: SourceFile, span: Span, *, hint: str | None = None, notes: tuple[str, ...] = (), **facts: object
    ) -> Diagnostic:
        """The diagnostic of this code at `span`; `hint` replaces the code's own."""
        return self.of(source, span, facts, hint, notes)

    def of(
        self,
        source: SourceFile,
        span: Span,
        facts: Mapping[str, object],
        hint: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Diagnostic:
        """The same with the facts in a mapping."""
        action = hint if hint is not None else self.hint.format(**facts) if self.hint is not None else None
        return Diagnostic(self.code, self.severity, source, span, self.message.format(**facts), action, notes)


# Names
UNKNOWN_NAME = Code(
    "E101",
    "a name that nothing defines",
    "no {what} is called `{name}`",
    "define it, or write one of the names that exist",
)
DUPLICATE_NAME = Code(
    "E102", "two definitions of one name", "`{name}` is already defined on line {line}", "give this one another name"
)
RESERVED_NAME = Code(
    "E103", "a definition of a built-in name", "`{name}` is a built-in name", "give this {what} another name"
)
NAME_NOT_HERE = Code(
    "E104",
    "a built-in value where it has none",
    "`{name}` ({meaning}) has no value {where}",
    "use parameters and numbers here",
)
USED_BEFORE_LET = Code(
    "E105",
    "a `let` used before its own line",
    "`{name}` is used before its `let`",
    "move `let {name} = ...` above this line",
)
CYCLE = Code(
    "E106",
    "definitions that need each other",
    "the definition of `{name}` needs itself: {path}",
    "remove one of these references",
)
UNKNOWN_KIND = Code(
    "E107",
    "an unknown input kind",
    "`{name}` is not a kind of input",
    "write one of {kinds}",
)
NOT_CALLABLE = Code(
    "E108", "arguments given to a value", "`{name}` takes no arguments", "write `{name}` without parentheses"
)
KIND_ARGUMENTS = Code(
    "E109",
    "what a kind of input does not take in its parentheses",
    "the kind `{kind}` does not take this",
    "write {usage}",
)

# Types and arguments
WRONG_TYPE = Code(
    "E201", "a value of the wrong type", "{role} must be {expected}, and this is {actual}", "write {expected} here"
)
MIXED_UNITS = Code(
    "E202",
    "tokens and blocks mixed",
    "this mixes tokens with blocks: {left} with {right}",
    "use one unit: `tokens(x)` turns a count of blocks into tokens, and `4b` is four blocks",
)
UNKNOWN_ARGUMENT = Code(
    "E203",
    "an argument name that the term does not have",
    "`{callee}` has no argument called `{name}`",
    "its arguments: {known}",
)
MISSING_ARGUMENT = Code(
    "E204", "a required argument left out", "`{callee}` needs its argument `{name}`", "write `{usage}`"
)
TOO_MANY_ARGUMENTS = Code(
    "E205", "too many arguments without a name", "`{callee}` takes {count} without a name", "write `{usage}`"
)
REPEATED_ARGUMENT = Code("E206", "one argument given twice", "`{name}` is given twice", "keep one of the two")
DECIMAL_NOT_HERE = Code(
    "E207",
    "a decimal outside the statements of the score",
    "a decimal may stand only in {places}",
    "write an integer here",
)
FRACTION_NOT_HERE = Code(
    "E208",
    "`/` outside the statements of the score",
    "`/` makes a decimal, and a decimal may stand only in {places}",
    "write `//` to divide integers",
)
RUN_TIME_LENGTH = Code(
    "E209",
    "a run-time length where none may stand, or arithmetic on one",
    "a run-time length may stand only as the length of `sink` and `window`, and as an end of `columns` and `rows`",
    "write the input by itself, as in `sink(prefix)`, `window(prefix, ahead = 4)` or `columns(0 .. prefix)`",
)
PARAMETER_TYPE = Code(
    "E210",
    "a parameter whose default is no plain value",
    "the default of parameter `{name}` is {actual}",
    "give it an integer, a length, a boolean, a list or a range; name a set of pairs with `let`",
)
WEIGHTS_NOT_HERE = Code(
    "E211",
    "an input of weights outside `key_bias`",
    "an input of kind `weights` is no term: its numbers change the score",
    "add them to the score with the statement `key_bias`, and attend to a set of pairs",
)

# Structure of a file
NO_PATTERN = Code(
    "E301", "a file without a pattern", "this file has no pattern", "add `pattern name {{ causal attend full }}`"
)
NO_ATTEND = Code(
    "E302",
    "a pattern without `attend`",
    "pattern `{name}` attends to nothing",
    "add a statement such as `attend window(256)`",
)
DUPLICATE_STATEMENT = Code(
    "E303", "a statement written twice", "`{statement}` is already given on line {line}", "keep one of the two"
)
MISPLACED_STATEMENT = Code(
    "E304",
    "a statement in the wrong kind of item",
    "`{statement}` does not belong in a {item}",
    "a {item} takes: {allowed}",
)
AFTER_OTHERWISE = Code(
    "E305", "an arm after `otherwise`", "no arm after `otherwise` can be reached", "move `otherwise` to the end"
)
TWO_OTHERWISE = Code(
    "E306", "two `otherwise` arms", "`otherwise` is already given on line {line}", "keep one of the two"
)
BARE_AND_ARMS = Code(
    "E307",
    "a bare `attend` or `use` beside other arms",
    "`{verb}` without a condition must be the only arm, but line {line} has another one",
    "{action}",
)
NO_USE = Code("E309", "a model without `use`", "model `{name}` uses no pattern", "add `use` and the name of a pattern")
BLOCK_DISAGREES = Code(
    "E310",
    "a referenced pattern with another block size",
    "pattern `{inner}` has block {inner_block}, and pattern `{outer}` has block {outer_block}",
    "write `block {inner_block}` in `{outer}`, or take `block` out of `{inner}`",
)
HEADS_DISAGREE = Code(
    "E311",
    "a referenced pattern with other head counts",
    "pattern `{inner}` is for {inner_heads}, and here there are {outer_heads}",
    "make the head counts agree, or take `heads` out of `{inner}`",
)
DOCUMENTS_DISAGREE = Code(
    "E312",
    "a referenced pattern with other documents",
    "pattern `{inner}` says `{statement}`, and pattern `{outer}` does not",
    "write `{statement}` in `{outer}`, which applies to everything that it names",
)
SCORE_DISAGREES = Code(
    "E313",
    "a referenced pattern with another score",
    "pattern `{inner}` changes the score with `{statement}`, and pattern `{outer}` does not do the same",
    "give `{outer}` the same `{statement}` statement, or take it out of `{inner}`",
)
INPUT_DISAGREES = Code(
    "E314",
    "one input name with two kinds",
    "input `{name}` is of kind {inner_kind} in pattern `{inner}`, and of kind {outer_kind} in pattern `{outer}`",
    "give one of the two inputs another name",
)
TREE_IN_DOCUMENTS = Code(
    "E315",
    "an input of kind `tree` beside `documents`",
    "input `{name}` is the tree of one sequence's last tokens, and packed documents are many sequences",
    "take `documents` out, and give each sequence a row of the batch",
)

# Values
DIVISION_BY_ZERO = Code("E401", "a division by zero", "this divides by zero", "write a divisor that is not zero")
TOO_LARGE = Code(
    "E402",
    "an integer over 2^31 - 1, or more than 4096 draws",
    "{what} is {value}, over the limit of {limit}",
    "write a smaller number",
)
TOO_SMALL = Code(
    "E403",
    "a window, stride or count that is too small",
    "{what} is {value}, and must be at least {least}",
    "write {least} or more",
)
EMPTY_RANGE = Code(
    "E404",
    "an empty range",
    "the range {range} is empty",
    "a range `a..b` holds a and stops before b: make b larger than a",
)
BAD_BLOCK = Code(
    "E405", "a bad block size", "the block size is {value}", "write a power of two from 16 to 1024, such as `block 64`"
)
BAD_KV_HEADS = Code(
    "E406",
    "KV heads that do not divide the heads",
    "{heads} query heads do not split into {kv_heads} KV groups",
    "make the number of query heads a multiple of the number of KV heads",
)
COUNT_OUT_OF_RANGE = Code(
    "E407", "a head or layer count out of range", "the number of {what} is {value}", "write a number from 1 to 4096"
)
NO_ARM = Code(
    "E408",
    "a head or layer without an arm",
    "no arm holds for {what}",
    "add `otherwise {verb} ...`, or widen a condition",
)
UNREACHABLE_ARM = Code(
    "E409",
    "an arm that nothing reaches",
    "no {what} reaches this arm: {why}",
    "remove the arm or change the conditions",
)
TOO_MANY_TERMS = Code(
    "E410",
    "a set that expands to too many terms",
    "the set of one head expands to more than {limit} terms",
    "write the set with fewer terms",
)
TOO_MUCH_WORK = Code(
    "E411",
    "a file that takes too long to evaluate",
    "evaluating this pattern takes more than {limit} steps",
    "use fewer heads, layers or terms, or conditions and terms that depend on fewer of them",
)
TOO_DEEP = Code(
    "E412",
    "names nested too deep",
    "this nests more than {limit} operations once its names are expanded",
    "write it with fewer operators or names",
)
BAD_SCORE = Code(
    "E413",
    "a number that a statement of the score does not take",
    "{what} is {value}",
    "write {wanted}",
)
TOO_MANY_BANDS = Code(
    "E414",
    "a set that needs too many bands",
    "{what} does not simplify to {limit} bands or fewer",
    "write it with fewer unions, differences and complements of unlike terms, and fewer rows in `near2d`",
)

NO_ELEMENT = Code(
    "E415",
    "an index outside a list",
    "index {index} is outside {list}",
    "count from 0, and give the list an element for each index",
)
NUMBERS_OF_HEADS = Code(
    "E416",
    "a list in a statement of the score that has not one number for each head",
    "`{statement}` lists {count} {number}s, for {heads}",
    "list one {number} for each query head{alone}",
)
TOO_MANY_CLASSES = Code(
    "E417",
    "heads of too many kinds",
    "the heads of pattern `{name}` are of {count} kinds, over the limit of {limit}",
    "let more heads agree in terms and periods: heads of one kind may differ in windows, columns, phases and lanes",
)
TOO_MANY_TOGETHER = Code(
    "E418",
    "heads whose sets need too many bands together",
    "the kinds of heads of pattern `{name}` need more than {limit} bands together",
    "let more heads agree in terms and periods, or write their sets with fewer unlike terms",
)

# What the language has and the kernels do not take
NO_CACHE = Code(
    "E502",
    "a KV cache for a pattern that has none",
    "pattern `{name}` has no KV cache: {why}",
    "add `causal`, or run the pattern on all keys at once",
)

# Warnings
EMPTY_ROW = Code(
    "W601",
    "a query that may attend to nothing",
    "in pattern `{name}` the query at position {row} of head {head} attends to no key when there are {keys} keys",
    "add a term that every query reaches, such as `window(1)`; the output of such a query is 0",
)
GROUP_DIFFERS = Code(
    "W602",
    "a KV group whose heads keep different keys",
    "in pattern `{name}` heads {first} and {second} of KV group {group} attend to different keys: the cache keeps both",
    "if the heads of a group can agree, use `g` in place of `h`",
)
UNSEEN_PAIR = Code(
    "W603",
    "a strided pattern with pairs that no head sees",
    "pattern `{name}` is strided, and no head lets query {query} attend to key {key}",
    "give the heads phases that cover the whole period, such as `phase = g`; the period must not exceed their number",
)
CONTAINED = Code(
    "W604",
    "a term that another contains",
    "`{inner}` is contained in `{outer}`, so `{redundant}` changes nothing in this {operation}",
    "remove `{redundant}`",
)

CACHE_GROWS = Code(
    "W605",
    "a term that makes a KV cache keep every key",
    "the KV cache of pattern `{name}` keeps every key for `{term}`: {why}",
    "bound how far back the term reaches, such as `& window(4k)`, if the cache has to stay small",
)
UNUSED_INPUT = Code(
    "W607",
    "an input that nothing uses",
    "nothing in pattern `{pattern}` uses the input `{name}`",
    "use it, or remove its line: every call has to pass it",
)

MEANING_CODES: tuple[Code, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Code))
