"""Operators on the templates of the Triton kernels: forward, backward and over a cache."""

from __future__ import annotations

from mutant import Operator

KERNELS = "templates/triton/kernels"


def _of(part: str, *operators: tuple[str, str, str, str]) -> tuple[Operator, ...]:
    return tuple(
        Operator(f"Triton: {name}", part, file if "/" in file else f"templates/triton/{file}", before, after)
        for name, file, before, after in operators
    )


FORWARD = _of(
    "Triton forward",
    ("sums not rescaled", f"{KERNELS}/softmax.py", "(sums[n] * decay[:, None],)", "(sums[n],)"),
    ("no mask", "loops.py.jinja", '"live" if iterations.masked else', '"start < nk" if iterations.masked else'),
    ("heads dealt out to groups in turn", "query_tile.py.jinja", "group = head // {{ view.group_size }}",
     "group = head % {{ view.kv_heads }}"),
)  # fmt: skip

SCORES = _of(
    "Triton scores",
    ("softcap's derivative", f"{KERNELS}/modifiers/softcap.py", "(1.0 - softcap_kept * softcap_kept)",
     "(1.0 - softcap_kept)"),
    ("alibi slopes from head 0", f"{KERNELS}/modifiers/alibi.py", "tl.load(head_slopes + head)",
     "tl.load(head_slopes)"),
)  # fmt: skip

DOCUMENTS = _of(
    "Triton documents",
    ("rows of the document before", "query_tile.py.jinja", "i0 = tl.maximum(tile_start, begin)",
     "i0 = tl.maximum(tile_start, 0)"),
    ("keys of the document before", "sparsec/backends/triton/emit.py",
     'both(at_most(Var("begin"), Var("j")), less(Var("j"), Var("end")))', 'less(Var("j"), Var("end"))'),
)  # fmt: skip

BACKWARD = _of(
    "Triton backward",
    ("gradient of the LSE with the other sign", "row_sums.py.jinja", "sums -= given", "sums += given"),
    ("delta left out", f"{KERNELS}/gradients.py", "p * (slopes - deltas)", "p * slopes"),
    ("keys of the group's first head alone", "key_tile.py.jinja", '"0, " ~ view.group_size', '"0, 1"'),
)  # fmt: skip

PARTS_OF_TILES = _of(
    "Triton parts",
    ("a part from the first query on", "splits.py.jinja", "first_stretch = {{ of_task(1) }}", "first_stretch = 0"),
    ("a part's stretches in the next one too", "tasks.py", "(number <= n)", "(number <= n + 1)"),
    ("the first part of a tile left out", f"{KERNELS}/tiles.py", "tl.range(0, count)", "tl.range(1, count)"),
    ("parts from the tile's second number on", "tasks.py", "tl.cumsum(count, 0) - count", "tl.cumsum(count, 0)"),
)  # fmt: skip

CACHED = _of(
    "Triton cached",
    ("the first new key from the cache", "cached_keys.py.jinja", "old = key < length", "old = key <= length"),
    ("parts merged without rescaling", f"{KERNELS}/cached.py", "sums[n] * decay + tl.sum(", "sums[n] + tl.sum("),
    ("padding stored", "cached_store.py.jinja", "(row < nq) & (j >= length) &", "(row < nq) &"),
)  # fmt: skip

PAGES = _of(
    "Triton pages",
    ("a dead page looked up", "paged_keys.py.jinja", '"(key < nk)" }} & (dead == 0)', '"(key < nk)" }}'),
    ("lists of the first request's rows", "sparsec/backends/triton/emit_pairs.py", '"begin + {} - q0" if',
     '"{} - q0" if'),
    ("keys of another row's list", "paged_gather.py.jinja", "listed += row_at *", "listed += 0 *"),
    ("a query tile of two requests", f"{KERNELS}/paged.py", "(place < past)", "(place <= past)"),
    ("parts of other requests", "paged_decode.py.jinja", "(split * requests + request)", "(split + request)"),
    ("merged rows of the first request", "paged_decode.py.jinja", "(begin + row).to(tl.int64)", "row.to(tl.int64)"),
)  # fmt: skip

UNSEEN = _of(
    "Triton exact",
    ("a NaN in a sum unnoticed", f"{KERNELS}/exact.py", "(rows != 0.0).to(tl.int32)", "(rows > 0.0).to(tl.int32)"),
    ("infinities summed", f"{KERNELS}/exact.py", 'finite = tl.abs(piece) < float("inf")', "finite = piece == piece"),
    ("minus infinity marked as infinity", f"{KERNELS}/exact.py",
     'mark = tl.where(attempt % 3 == 1, float("inf"), float("-inf"))', 'mark = float("inf")'),
    ("what is not seen marked", f"{KERNELS}/exact.py", "tl.where(seen, 1.0, 0.0)", "tl.where(seen, 1.0, 1.0)"),
)  # fmt: skip

INPUTS = _of(
    "Triton inputs",
    ("numbers of a word's second half never picked", f"{KERNELS}/inputs.py",
     "number & 31)) & 1)", "number & 15)) & 1)"),
    ("a run of columns without its second word", f"{KERNELS}/inputs.py",
     "<< 1) << (31 - shift)", "<< 1) << (30 - shift)"),
    ("every word of a run the first", f"{KERNELS}/inputs.py",
     "tl.where(column >> 5 == n, bits", "tl.where(column < 0, bits"),
    ("a cell of the row before", f"{KERNELS}/inputs.py", "cells + tl.where(of_row, row, 0)",
     "cells + tl.where(of_row, row - 1, 0)"),
    ("lists halved without the first entry", f"{KERNELS}/inputs.py", "    low = zeros\n", "    low = zeros + 1\n"),
    ("the last of a tile's entries left out", f"{KERNELS}/inputs.py", "most + 1, row * 0", "most, row * 0"),
)  # fmt: skip

COLUMNS = _of(
    "Triton inputs",
    ("listed columns unmasked", "sparsec/backends/triton/emit_columns.py", 'f"live = allowed & {known}"',
     'f"live = {known}"'),
    ("a part of a list from the last part's second key", "columns.py.jinja", "+ part * {{ kernel.key_tile }}",
     "+ part"),
    ("lists of columns without an end", "columns.py.jinja", "past = picked_before(counts_at, {{ ends[1] }},",
     "past = picked_before(counts_at, {{ ends[0] }},"),
)  # fmt: skip

BIAS = _of(
    "Triton bias",
    ("weights of heads in turn", f"{KERNELS}/modifiers/key_bias.py", "(head * bias_heads // HEADS)",
     "(head % bias_heads)"),
    ("weights of the document before", f"{KERNELS}/modifiers/key_bias.py", "row = j + KEY_ROW", "row = j"),
)  # fmt: skip

CACHED_INPUTS = _of(
    "Triton cached inputs",
    ("listed keys over a tile's part", "cached_gather.py.jinja", "(before + split).to", "split.to"),
    ("listed keys of the cache from the call", "cached_gather.py.jinja", "old = key < length", "old = key < 0"),
)  # fmt: skip

CACHED_MASS = _of(
    "Triton cached mass",
    ("mass of a tile by every program", "cached_mass.py.jinja", "(alone | (tile % splits == split))", "(tile >= 0)"),
    ("mass of an entry in its spot's place", "cached_mass.py.jinja", "add_mass(mass_at, position, sums, ",
     "add_mass(mass_at, spot, sums, "),
    ("mass in place of what was there", f"{KERNELS}/cached.py", "tl.load(at, mask=there, other=0.0) + sums", "sums"),
)  # fmt: skip

KEPT = _of(
    "Triton kept",
    ("new keys in the first sequence's lists", "cached_kept.py.jinja", "kept_lists + program * 3",
     "kept_lists + group * 3"),
    ("kept keys without the others' weight", f"{KERNELS}/kept.py", "weight * decay + share", "weight * decay"),
    ("kept keys over the others' part", "cached_kept.py.jinja", "(before + split).to", "split.to"),
    ("marks of the first word alone", f"{KERNELS}/kept.py", "tl.where(bit >> 5 == n, ", "tl.where(bit < 0, "),
)  # fmt: skip

LIMITS = _of(
    "Triton exact",
    ("a limit behind its word's last column", f"{KERNELS}/limits.py", "limit - first, 0), 32)",
     "limit - first, 0), 31)"),
    ("words of 16 columns", f"{KERNELS}/limits.py", "column & 31", "column & 15"),
    ("columns between limits that cross", f"{KERNELS}/limits.py", "tl.maximum(lower, upper) - lower", "upper - lower"),
)  # fmt: skip

INTERVALS = _of(
    "Triton forward",
    ("the first word for all columns", "sparsec/backends/triton/emit_limits.py",
     'f"tl.where(column < {at + _WORD}, word_{n}, {word})" if word', 'f"word_{n}" if word'),
    ("intervals without what all rows have", "sparsec/backends/triton/emit_limits.py",
     'f"word_{n} = word_{n} & {common}"', 'f"word_{n} = word_{n}"'),
)  # fmt: skip

DOCUMENT_TILES = _of(
    "Triton documents",
    ("tiles of the document before", "documents.py", "(stop <= place[:, None])", "(stop < place[:, None])"),
    ("a document's tiles from row 0", "documents.py", "begin // tile + place - before", "place - before"),
)  # fmt: skip

OPERATORS = (
    *(*LIMITS, *INTERVALS, *DOCUMENT_TILES),
    *(*FORWARD, *SCORES, *DOCUMENTS, *BACKWARD, *PARTS_OF_TILES, *CACHED, *PAGES, *UNSEEN),
    *(*INPUTS, *COLUMNS, *BIAS, *CACHED_INPUTS, *CACHED_MASS, *KEPT),
)
