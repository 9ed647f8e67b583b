"""The codes E701 to E712: a head table of another project that `sparsec import` cannot read.

Invariant: TABLE_CODES lists every Code of this module once, in order; a code's number never changes its meaning.
"""

from __future__ import annotations

from sparsec.diagnostics.codes_meaning import Code

TABLE_TOO_LARGE = Code(
    "E701",
    "a table larger than 1.5 MiB",
    "the file has more than {limit} bytes",
    "a table of one model has a few hundred kilobytes: give the table itself",
)
EMPTY_TABLE = Code("E702", "a table without a layer", "this table has no layer", "{expected}")
NOT_A_SCORE = Code(
    "E703",
    "a score that is no number",
    "expected a number, found {found}",
    "write a decimal such as `0.25` for each KV group, with tabs in between",
)
UNEVEN_LAYER = Code(
    "E704",
    "a layer with more or fewer heads or KV groups than the first",
    "expected {expected} {what} as in the first layer, found {count}",
    "give every layer the same number",
)
TOO_MANY = Code("E705", "more layers, heads or KV groups than a model may have", "more than {limit} {what}", "{where}")
NOT_JSON = Code("E706", "a text that is no JSON", "expected {expected}, found {found}", "mend the JSON here")
WRONG_VALUE = Code(
    "E707",
    "a JSON value of another kind than the table has in this place",
    "expected {expected}, found {found}",
    'a layer is `{{"0": ["vertical_and_slash", 1000, 6096, 1.0], ...}}`',
)
UNKNOWN_TYPE = Code("E708", "a type of head that MInference does not have", "no type of head is called {found}")
MISSING_HEAD = Code(
    "E709",
    "a layer that leaves a head out",
    "this layer has no head {head}",
    'what MInference takes for it is `"{head}": ["vertical_and_slash", 1000, 6096, 1]`',
)
REPEATED_HEAD = Code(
    "E710", "a head that a layer has twice", "head {head} is already given on line {line}", "keep one of the two"
)
SIZE_OUT_OF_RANGE = Code(
    "E711", "a size out of range", "the {what} size is {value}", "write a whole number from {least} to 2147483647"
)
MODEL_TOO_LARGE = Code(
    "E712",
    "a table whose model is over the limits of a `.sparse` file",
    "the model of this table is over a limit of the language: {why}",
    "import fewer layers at a time",
)

TABLE_CODES = (
    TABLE_TOO_LARGE,
    EMPTY_TABLE,
    NOT_A_SCORE,
    UNEVEN_LAYER,
    TOO_MANY,
    NOT_JSON,
    WRONG_VALUE,
    UNKNOWN_TYPE,
    MISSING_HEAD,
    REPEATED_HEAD,
    SIZE_OUT_OF_RANGE,
    MODEL_TOO_LARGE,
)
