"""Operators on the sources of the C++ kernels: forward, backward and over a cache."""

from __future__ import annotations

from mutant import Operator


def _of(part: str, *operators: tuple[str, str, str, str]) -> tuple[Operator, ...]:
    return tuple(
        Operator(
            f"C++: {name}", part, file if file.endswith(".py") else f"templates/cpu/kernels/{file}.h", before, after
        )
        for name, file, before, after in operators
    )


FORWARD = _of(
    "C++ forward",
    ("sums not rescaled", "softmax", "load(panel.o[d] + v * LANES) * factor[v])", "load(panel.o[d] + v * LANES))"),
    ("total not rescaled", "softmax", "    panel.total[v] *= factor[v];\n", ""),
    ("no mask", "softmax", "mask[r][v] ? sum[r][v] : splat(-INF)", "sum[r][v]"),
    ("weights of -inf minus -inf", "softmax", "return peak == splat(-INF) ? vec{} : peak;", "return peak;"),
    ("empty rows divided by zero", "panels", "= total == vec{} ? vec{} : 1.0f / total", "= 1.0f / total"),
    ("LSE without its peak", "panels", "(panel.peak[v] + log2(total))", "(log2(total))"),
    ("tail keys past the end", "tiles", "minimum(tile * KEY_TILE + KEY_TILE, w.end) - w.first_key",
     "tile * KEY_TILE + KEY_TILE - w.first_key"),
    ("odd key counted twice", "tiles", "w.mask[n][v] = ivec{};", "w.mask[n][v] = w.mask[count - 1][v];"),
    ("heads dealt out to groups in turn", "call_keys", "const int64_t g = h / (HEADS / KV_HEADS);",
     "const int64_t g = h % KV_HEADS;"),
    ("stride of the head dim", "elements", "to[d] = converted<To, Format>(from[d * m.dim], factor)",
     "to[d] = converted<To, Format>(from[d], factor)"),
    ("offset of the queries", "documents/none", "n_k, n_k, -call.q0, 0}", "n_k, n_k, 0, 0}"),
    ("bfloat16 cut off", "dtypes/bfloat16", "(b + 0x7fff + ((b >> 16) & 1)) >> 16", "b >> 16"),
    ("draws of another row", "draws", "(block - list.first, 0,", "(block, 0,"),
    ("division towards zero", "vectors", "return q - ((a - q * b < 0) & 1);", "return q;"),
)  # fmt: skip

PAIRS = _of(
    "C++ pairs",
    ("values of a pair's first key twice", "operands/bfloat16", "*b = from[2 * n + 1];", "*b = from[2 * n];"),
    ("weights not in pairs", "operands/bfloat16", "write(to + n * HALVES, in_turn<0, LANES>(both, both, Numbers()));",
     "write(to + n * HALVES, both);"),
    ("the mask of a pair's first key for both", "operands/bfloat16", "(mask[1][v] & int(0xffff0000))",
     "(mask[0][v] & int(0xffff0000))"),
    ("gradients of keys that there are not", "gradients", "(vec)((ivec)gradient[c] & panel.present[v])", "gradient[c]"),
    ("scores of pairs without their scale", "operands/bfloat16", "return sum * factor;", "return sum;"),
)  # fmt: skip

ROW_PAIRS = _of(
    "C++ pairs of rows",
    ("scores of a row's pairs without their scale", "row_operands/bfloat16", "return score * factor;", "return score;"),
    ("the last value twice", "row_operands/bfloat16", "(k + 1 < stop ? value[k + 1] : NO_VALUE)", "value[k + 1]"),
    ("sums of lanes left out", "vectors", "if constexpr (W == 1) return x;", "if constexpr (W <= 2) return x;"),
)  # fmt: skip

CALLS = _of(
    "C++ calls",
    ("calls of other strides alike", "sparsec/backends/cpu/kernel.py", "v.shape, q.stride(), k.stride(), v.stride(),",
     "v.shape,"),
    ("calls at other positions alike", "sparsec/backends/cpu/kernel.py", "v.is_cpu, q_offset, scale, threads),",
     "v.is_cpu, scale, threads),"),
    ("calls of other scales alike", "sparsec/backends/cpu/kernel.py", "v.is_cpu, q_offset, scale, threads),",
     "v.is_cpu, q_offset, threads),"),
    ("calls of other dtypes alike", "sparsec/backends/cpu/kernel.py", "q.dtype, k.dtype, v.dtype),", ")"),
)  # fmt: skip

MATRICES = _of(
    "C++ matrices",
    ("keys that do not lie evenly", "matrix_tiles/amx", "even &= at(n) - at(n - 1) == apart;", "even &= n > 0;"),
    ("weights of keys that there are not", "matrix_tiles/amx", "std::memset(weights + keys.count * PANEL, 0,",
     "std::memset(weights + keys.count * PANEL, 255,"),
    ("two matrices of sums in one place", "matrix_tiles/amx", "lower = upper + M * PANEL;", "lower = upper;"),
    ("shapes of keys for values", "matrix_tiles/amx", "_tile_loadconfig((&SHAPES<DIMS, VALUE_UNITS>))", "(void)0"),
    ("matrices though the system refuses", "matrix_tiles/amx", "ASK_FOR_STATE, MATRICES) == 0;",
     "ASK_FOR_STATE, MATRICES) != 1;"),
    ("threads that keep their matrices", "matrix_tiles/amx", "if (by_matrices) _tile_release();", ""),
    ("values of any kind in matrices", "matrix_tiles/amx", "if (seen) return add_seen(panel, keys, weights, mask);",
     ""),
    ("infinite values for all rows", "matrix_tiles/amx", "if (mask[n][lane / LANES][lane % LANES])", ""),
    ("units of half a matrix further", "matrix_tiles/amx", "_tile_loadd(7, units + MATRIX * DEPTH, WIDTH)",
     "_tile_loadd(7, units + MATRIX, WIDTH)"),
)  # fmt: skip

SCHEDULE = _of(
    "C++ schedule",
    ("the shortest rows first", "forward", "tiling[tiles - 1 - n % tiles]", "tiling[n % tiles]"),
    ("a head's tiles twice", "forward", "n / tiles % heads * TOGETHER", "n / tiles % heads / 2 * TOGETHER"),
    ("sums of shares in one cache line", "row_sums", "struct alignas(64) Sum {", "struct Sum {"),
)  # fmt: skip

SCORES = _of(
    "C++ scores",
    ("learned sink without weight", "modifiers/learned_sink", "total = 1.0f;", "total = 0.0f;"),
    ("softcap's derivative left out", "modifiers/softcap", "gradient[n] *= 1.0f - kept.tanh[n] * kept.tanh[n];", ";"),
    ("alibi slopes from head 0", "sparsec/backends/cpu/modifiers.py", "for slope in modifier.of_heads(heads)",
     "for slope in modifier.of_heads(heads)[:1] * heads"),
)  # fmt: skip

DOCUMENTS = _of(
    "C++ documents",
    ("document's keys from the start", "documents/separate", "begin, end, int(call.n_k)", "0, end, int(call.n_k)"),
    ("keys of the first document", "documents/restart", "begin - call.q0, begin};", "begin - call.q0, 0};"),
)  # fmt: skip

BACKWARD = _of(
    "C++ backward",
    ("gradient of the LSE with the other sign", "rows", "total - of_lse", "total + of_lse"),
    ("keys of the group's first head alone", "backward", "h < (g + 1) * (HEADS / KV_HEADS)",
     "h < g * (HEADS / KV_HEADS) + 1"),
    ("dq of the first share alone", "shares", "      add(next->sums, of.total.sums);\n", ""),
    ("sums of one share kept in another", "shares", "to.touched[n] = 1, from.touched[n] = 0;", "to.touched[n] = 1;"),
    ("padding writes a query's dq", "query_tiles", "      w.live.dq[n] = w.nowhere;\n", ""),
)  # fmt: skip

NARROW = _of(
    "C++ narrow caches",
    ("int8 values without their scale", "row", "w.s[r][n] *= factor;", "(void)factor;"),
    ("int8 keys without their scale", "dot_products", "load(s[r] + first) * load(factor)", "load(s[r] + first)"),
    ("int8 rounded down", "dtypes/int8", "x + 12582912.0f", "x - 0.5f + 12582912.0f"),
)  # fmt: skip

CACHED = _of(
    "C++ cached",
    ("the first new key from the cache", "cached_keys", "number[n] < from.length;", "number[n] <= from.length;"),
    ("shares merged without rescaling", "row_sums", "o[d] = o[d] * before +", "o[d] = o[d] +"),
    ("a key between two batches not stored", "store", "minimum(AT_ONCE, stop - first)",
     "minimum(AT_ONCE - 1, stop - first)"),
    ("rows of a list counted from its first one", "dot_products", "  return off != 0;", "  return off != off;"),
)  # fmt: skip

PAGES = (
    *_of("C++ pages", ("a row of the page's next key", "paged_rows", "first = number * from.size;",
                       "first = number * from.size - 1;")),
    *_of("C++ pages", ("cells from the first request's tokens on", "paged_chunk", "part.n_k, part.q0);",
                       "part.n_k, 0);")),
    *_of("C++ pages", ("keys of the team's first head", "paged_attend", "first.key[n] + keys[r]", "first.key[n]")),
    *_of("C++ pages", ("packs of other keys in a team", "paged_decode", "KINDS[n] == KINDS[n - 1]", "true")),
    *_of("C++ pages", ("a team's values of the first keys", "paged_attend",
                       "ComingRows<DV>{far, near, first}, first, stop,",
                       "ComingRows<DV>{far, near, first}, 0, stop,")),
    *_of("C++ guarded pages", ("a dead page is loaded", "paged_keys",
                               "if (is_dead(from.group, first + n, first + n + rows, from.stop)) {", "if (false) {")),
)  # fmt: skip

INPUTS = _of(
    "C++ inputs",
    ("every cell for some", "inputs/cells", "return meets(pairs, true);", "return !meets(pairs, false);"),
    ("picked numbers from zero", "inputs/counted", "minimum(maximum(number - first, 0), count)",
     "minimum(maximum(number, 0), count)"),
    ("a listed key that a tile has counted twice", "own_keys", "live(w.i0, j) & (j >= w.begin)", "(j >= w.begin)"),
    ("gradients of the first rows alone", "gathers/backward", "share < shares; ++share", "share < 1; ++share"),
    ("a listed column between two tiles", "columns/tiles", "first += KEY_TILE", "first += KEY_TILE + 1"),
    ("listed columns of the last head alone", "columns/backward", "to[WIDE + d] += w.dv[n][d]",
     "to[WIDE + d] = w.dv[n][d]"),
    ("listed columns of no later document", "columns/range", "first = past;", "first = stop;"),
)  # fmt: skip

MASS = _of(
    "C++ mass",
    ("listed keys' mass in another head's place", "gathers/mass", "sums + w.heads[r] % SHARE", "sums + r"),
    ("listed keys' mass of the first share alone", "gathers/mass", "share < shares; ++share", "share < 1; ++share"),
)  # fmt: skip

CACHED_MASS = _of(
    "C++ cached mass",
    ("mass of a cache in the pack's first heads", "cached_mass", "(b * HEADS + w.heads[r]) *", "(b * HEADS + r) *"),
    ("mass of the groups that the first is", "cached_mass", "call.mass_groups[pack.group])", "call.mass_groups[0])"),
)  # fmt: skip

BIAS = _of(
    "C++ bias",
    ("weights of heads in turn", "modifiers/key_bias", "head * call.bias_heads / HEADS *", "head % call.bias_heads *"),
    ("weights of the document before", "modifiers/key_bias", "const int64_t row = key + first;",
     "const int64_t row = key;"),
)  # fmt: skip

KEPT = _of(
    "kept keys",
    ("marks of a tile's first entry", "kept/tiles", "w.inputs.entry = entry + n;", "w.inputs.entry = entry;"),
    ("every tile of a list the first", "kept/tiles", "const int64_t entry = list.base + first;",
     "const int64_t entry = list.base;"),
    ("entries of the next list", "kept/keys", " & (w.lane[0] < int(stop - n))", ""),
    ("marks of the first bit alone", "inputs/kept", "((marks >> shift) & 1)", "(marks & 1)"),
    ("marks of the first sequence", "kept/append", "(marks.batch > 1 ? b * marks.stride[0] : 0)", "0"),
    ("a list without an end", "kept/append", "return room >= 0;", "return true;"),
)  # fmt: skip

GUARDED = _of(
    "C++ guarded",
    ("draws outside their table", "draws", "std::clamp<int64_t>(block - list.first, 0, list.blocks - 1)",
     "block - list.first"),
    ("a listed block past the last key", "own_keys", " & (j < w.end)", ""),
    ("cells outside their table", "inputs/cells", "within(row, rows) && within(column, columns) &&",
     "within(column, columns) &&"),
)  # fmt: skip

GUARDED_NARROW = _of(
    "C++ guarded narrow",
    ("values read as if they were keys", "dot_products", "const int more = (SUMS - count % SUMS) % SUMS;",
     "const int more = 0;"),
)  # fmt: skip

OPERATORS = (
    *(
        *FORWARD,
        *PAIRS,
        *ROW_PAIRS,
        *CALLS,
        *MATRICES,
        *SCHEDULE,
        *SCORES,
        *DOCUMENTS,
        *BACKWARD,
        *CACHED,
        *NARROW,
        *PAGES,
    ),
    *(*INPUTS, *MASS, *CACHED_MASS, *BIAS, *KEPT, *GUARDED, *GUARDED_NARROW),
)
