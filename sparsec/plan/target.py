"""Target name and head dimension -> tile sizes, warps and pipeline stages: the only place that knows machines.

A target is `cpu`, `cpu:<level>` (`cpu:x86-64-v3`), `cuda:<compute capability>` (`cuda:90`), `hip:<architecture>`
(`hip:gfx942`), GLUON, `interpreter` (Triton's, for tests) or `torch`, which is tiled as `cpu`. `head_dim` is the larger
of the dimensions of keys and of values. What a sweep measured best (`PICKS`) comes before the rules below. Invariant:
the figures depend on nothing but the arguments and that table; no device is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsec.plan.picks import PICKS, Family, Kind, Pick, Tiles

DECODE_ROWS = 16
"""Calls of at most so many queries go to the kernels of decoding."""
CPU_FEW_ROWS = 3
"""On a CPU the kernel of single rows takes up to this many queries for each head of a pack, for it reads every key once
a row and pack; that of chunks, which reads it once a head, takes as long for one query as for a tile of them."""
CPU_KEYS_A_TASK, CPU_MOST_TASKS, CPU_ROW_TASKS = 256, 16, 64
"""On a CPU a row of few queries over a cache is shared out to tasks of so many keys: so many tasks of all packs, and
where there are more keys, of twice as many keys, so many tasks of a pack. No number of rows or threads changes it."""
CPU_PAGED_KEYS_A_TASK, CPU_PAGED_MOST_TASKS = 512, 64
"""Over pages to tasks of so many keys, so many at most."""
CPU_KEYS_AT_ONCE, CPU_CACHED_KEYS_AT_ONCE = 256, 1024
"""Keys that a row takes at a time; and over a cache, of which no other row reads them again."""
CPU_BYTES_AHEAD = 8192
"""On a CPU, bytes of keys from the one at hand to the one that is fetched from memory."""
CPU_BYTES_NEAR = 1024
"""Likewise of keys that follow each other in memory."""
CPU_BYTES_A_BLOCK = 4096
"""On a CPU, bytes of keys or values that stay at hand while other heads of a pack meet them."""
CPU_GRADIENT_ROWS = 64
"""On a CPU, rows of q that the gradients' kernel sets to zero, prepares and sums at a time."""
CPU_ELEMENTS_A_THREAD = 32_768
"""On a CPU, elements that are copied into a cache in the time that it takes to wake a thread."""
SUM_ROWS, STORE_ROWS, MERGED, JOINED_ROWS = 16, 16, 16, 16
"""Rows of one program of Triton's `row_sums`, and of its `store`; splits that one step of its `merge` adds; keys of
one program that joins the parts of a key tile."""
WALKED_TILES, LISTED_PLACES, LISTED_DOCUMENTS = 128, 128, 64
"""Tiles that Triton's kernels ask inputs of at a time, tiles of documents that one finds, and documents at a time."""
PARTS_A_PROCESSOR, LONG_WALK, SHORTEST_PART, STRETCHES, SHARED_TILES = 4, 256, 16, 32, 64
"""How many programs of a GPU's processor, beside those of all key tiles, share query tiles of key tiles that many
queries see; from how many query tiles of a KV group's heads on; the fewest that are one's; in how many places they are
cut; and key tiles at a time."""
LISTED_KEYS = 64
"""Keys of a list of columns, at most, that one of Triton's programs computes gradients of: they take more registers."""
CHAINED_SEGMENTS = 4
"""Contiguous segments of one of Triton's loops that a chain of comparisons tells apart; more go through a vector."""
TORCH_COLUMNS, TORCH_ROWS = 4096, 16
"""Columns that the kernels of `torch` take at a time, and rows that are not finite."""
LEAST_TILE = 16
"""Rows or columns of a tile that is cut to fit the cells of an input."""
VAST = 256
"""Head dimensions above take so many registers for one row that Triton's tiles are the smallest for tensor cores."""
LIGHT_MASKED = 2
"""Masked segments, at most, of a program whose kernel needs few registers."""
FEW_BANDS = 3
"""Bands of a head, at most, that leave registers for large query tiles of its keys' gradients."""
CPU_LEVELS = ("x86-64-v3", "x86-64-v4", "sapphirerapids")
"""Of the x86-64 psABI: AVX2 and FMA; those and AVX-512. And of Intel's: AVX-512 BF16 and AMX of bfloat16 too."""
CPU_TARGETS = ("cpu", *(f"cpu:{level}" for level in CPU_LEVELS))
GLUON, GLUON_TILES = "gluon:90", (128, 64)
"""Query and key tile of its forward kernels: two warp groups of 64 rows. What was measured of Triton's says nothing."""
GPU_TARGETS = (
    *("cuda:80", "cuda:86", "cuda:87", "cuda:89", "cuda:90", "cuda:100", "cuda:103", "cuda:120", "cuda:121"),
    *("hip:gfx908", "hip:gfx90a", "hip:gfx942", "hip:gfx950"),
)
"""Those that Triton and its assemblers build for; any other ends in pages of their intermediate code, or an abort."""


@dataclass(frozen=True, slots=True)
class LaunchShape:
    """How one kernel is compiled.

    `tma`: keys and values come through tensor descriptors where their strides allow. `maxnreg`: the most registers a
    thread may have, on NVIDIA's GPUs; None leaves it to the assembler.
    """

    warps: int
    stages: int
    tma: bool
    maxnreg: int | None = None


MOST_REGISTERS = 255
"""Of a thread. Without a limit the assembler may hold itself to 128 or 168, for more programs at a time, and spill."""
PLAIN = LaunchShape(4, 1, False)
"""Of kernels without a product of matrices."""


def pick_of(target: str, kind: Kind, head_dim: int, dtype: str, tiles: Tiles = ()) -> Pick | None:
    """That of `tiles`, or the sweep's of the nearest head dimension above, if that is less than twice as large."""
    if given := dict(tiles).get(kind):
        return given
    above = next((dim for dim in (64, 128, 256) if dim // 2 < head_dim <= dim), 0)
    return PICKS.get((family(target), kind, above, dtype))


def family(target: str) -> Family:
    """The family of `target`. Raises ValueError for a name of another form."""
    match target.split(":"):
        case ["cpu" | "torch"]:
            return Family.CPU
        case ["cpu", level] if level in CPU_LEVELS:
            return Family.CPU
        case ["interpreter"]:
            return Family.INTERPRETER
        case ["cuda" | "gluon", capability] if capability.isdecimal() and int(capability) >= 80:
            if int(capability) == 90:
                return Family.HOPPER
            return Family.BLACKWELL if 100 <= int(capability) < 120 else Family.AMPERE
        case ["hip", architecture] if architecture.startswith("gfx"):
            return Family.CDNA
    raise ValueError(f"expected a target such as cpu, cuda:90 or hip:gfx942, got {target!r}")


def gathers_columns(target: str) -> bool:
    """Whether kernels gather the keys that an input lists for all queries."""
    return target != "torch"


def shared_memory_bytes(target: str) -> int:
    """Shared memory that one program may use."""
    match family(target):
        case Family.HOPPER | Family.BLACKWELL:
            return 232_448
        case Family.CDNA:
            return 65_536
        case Family.AMPERE:
            return 166_912 if target in ("cuda:80", "cuda:87") else 101_376
        case Family.CPU | Family.INTERPRETER:
            return 1 << 30


def tile_sizes(target: str, head_dim: int, dtype: str, tiles: Tiles = ()) -> tuple[int, int, int, int]:
    """(query_tile, key_tile, warps, stages) to plan for; a pattern's blocks may make tiles smaller (`launch_shape`)."""
    found = GLUON_TILES if target == GLUON else _picked_tiles(target, Kind.FORWARD, head_dim, dtype, tiles)
    query_tile, key_tile = found or _tiles(family(target), head_dim, dtype)
    shape = launch_shape(target, head_dim, dtype, query_tile, key_tile, tiles=tiles)
    return query_tile, key_tile, shape.warps, shape.stages


def _picked_tiles(target: str, kind: Kind, head_dim: int, dtype: str, tiles: Tiles) -> tuple[int, int] | None:
    pick = pick_of(target, kind, head_dim, dtype, tiles)
    return None if pick is None else (pick.query_tile, pick.key_tile)


def _picked_shape(
    target: str, kind: Kind, head_dim: int, dtype: str, query_tile: int, key_tile: int, tiles: Tiles
) -> LaunchShape | None:
    """None for tiles of another size: a pattern's blocks made them smaller, and what was measured says nothing."""
    pick = pick_of(target, kind, head_dim, dtype, tiles)
    if pick is None or (pick.query_tile, pick.key_tile) != (query_tile, key_tile):
        return None
    tma = kind not in (Kind.CHUNK, Kind.DECODE) and _descriptors(family(target), dtype)
    return LaunchShape(pick.warps, pick.stages, tma, pick.maxnreg)


def _descriptors(of: Family, dtype: str) -> bool:
    return of in (Family.HOPPER, Family.BLACKWELL) and dtype != "float32"


def _tiles(of: Family, head_dim: int, dtype: str) -> tuple[int, int]:
    """The largest that spill nothing under any Triton, by `backends.triton.aot`, of strides, a window and a sink."""
    match of:
        case Family.CPU:
            return 64, 64
        case Family.INTERPRETER:
            return 32, 32
        case _ if head_dim > VAST:
            return 32, 16
        case _ if dtype == "float32":
            return (64, 16) if 64 < head_dim <= 128 and of is not Family.CDNA else (32, 32)
        case Family.AMPERE:
            return (128, 64) if head_dim <= 64 else (128, 32) if head_dim <= 128 else (64, 32)
        case Family.BLACKWELL if head_dim <= 64:
            return 64, 64
        case Family.HOPPER | Family.BLACKWELL:
            return 128, 64
        case Family.CDNA:
            return (128, 64) if head_dim <= 128 else (64, 32)
    raise AssertionError(f"no tiles for {of}")


def launch_shape(
    target: str,
    head_dim: int,
    dtype: str,
    query_tile: int,
    key_tile: int,
    *,
    light: bool = False,
    tiles: Tiles = (),
) -> LaunchShape:
    """Warps and stages for tiles of these sizes; `light`: as of `KernelPlan.light`."""
    if picked := _picked_shape(target, Kind.FORWARD, head_dim, dtype, query_tile, key_tile, tiles):
        return picked
    shape = _shape(target, head_dim, dtype, query_tile, key_tile)
    # Two programs a multiprocessor where one of eight warps needs little more than half the registers: none spills.
    limited = light and family(target) is Family.HOPPER and dtype != "float32" and head_dim <= 64 and shape.warps == 8
    return replace(shape, maxnreg=128) if limited else shape


def _shape(target: str, head_dim: int, dtype: str, query_tile: int, key_tile: int) -> LaunchShape:
    """A warp has 16 rows, as tensor cores take them."""
    of = family(target)
    if of is Family.CDNA:
        return LaunchShape(4 if head_dim > VAST else min(4, max(1, query_tile // 16)), 2, False)
    itemsize = 4 if dtype == "float32" else 2
    # Beside the stages lie the query tile, the probabilities and the reductions' scratch.
    room = shared_memory_bytes(target) - query_tile * (head_dim + key_tile) * itemsize - 4096
    two = dtype == "float32" or head_dim > 128 or (of is Family.BLACKWELL and head_dim <= 64)
    most = 2 if two else 4 if key_tile <= 32 and of is not Family.BLACKWELL else 3
    stages = max(1, min(most, room // (2 * key_tile * head_dim * itemsize)))
    # Without tensor cores, and for wide heads before wgmma, the sums want more threads a row.
    narrow = dtype == "float32" or (of is Family.AMPERE and head_dim > 128)
    rows_of_a_warp = 16 if not narrow else 8 if dtype != "float32" or head_dim <= 64 else 4
    if head_dim > VAST:
        rows_of_a_warp = 4
    warps = min(8, max(1, query_tile // rows_of_a_warp))
    crowded = of is Family.BLACKWELL and dtype != "float32" and head_dim <= 64
    return LaunchShape(warps, stages, _descriptors(of, dtype), MOST_REGISTERS if crowded else None)


def backward_tile_sizes(target: str, head_dim: int, dtype: str, tiles: Tiles = ()) -> tuple[int, int]:
    """(query_tile, key_tile) of the queries' gradients: by rule, the largest that spill nothing up to dimension 128."""
    if picked := _picked_tiles(target, Kind.GRAD_QUERIES, head_dim, dtype, tiles):
        return picked
    match family(target):
        case (Family.CPU | Family.INTERPRETER) as of:
            return _tiles(of, head_dim, dtype)
        case _ if head_dim > VAST:
            return 16, 16
        case _ if dtype == "float32":
            return (32, 32) if head_dim <= 64 else (32, 16)
        case Family.AMPERE if head_dim <= 128:
            return (128, 64) if head_dim <= 64 else (128, 32)
        case Family.HOPPER | Family.BLACKWELL | Family.CDNA if head_dim <= 128:
            return 128, 64
        case Family.HOPPER | Family.BLACKWELL:
            return 128, 32
        case Family.AMPERE | Family.CDNA:
            return 64, 32
    raise AssertionError(f"no tiles for {target}")


def transposed_tile_sizes(
    target: str, head_dim: int, dtype: str, tiles: Tiles = (), *, busy: bool = False
) -> tuple[int, int]:
    """(query_tile, key_tile) to plan the gradients of keys and values for, likewise; `busy`: with documents, inputs,
    changed scores or many bands. Their kernels hold two sums of a key tile's size, so their query tiles are small, and
    a sweep's pick is not for them."""
    picked = _picked_tiles(target, Kind.GRAD_KEYS, head_dim, dtype, tiles)
    if picked and (not busy or dict(tiles).get(Kind.GRAD_KEYS)):
        return picked
    match family(target):
        case (Family.CPU | Family.INTERPRETER) as of:
            return _tiles(of, head_dim, dtype)
        case _ if head_dim > VAST:
            return 16, 16
        case _ if dtype == "float32":
            return (32, 32) if head_dim <= 64 else (16, 32)
        case _ if head_dim > 128:
            return 32, 32
        case Family.AMPERE:
            return 16 if head_dim <= 64 else 32, 64
        case Family.HOPPER:
            return 64 if head_dim <= 64 and not busy else 32, 128
        case Family.BLACKWELL:
            return 64, 64
        case Family.CDNA:
            return 64 if head_dim <= 64 else 32, 64
    raise AssertionError(f"no tiles for {target}")


def backward_shape(
    target: str, head_dim: int, dtype: str, query_tile: int, key_tile: int, *, of_keys: bool, tiles: Tiles = ()
) -> LaunchShape:
    """Warps and stages of a gradient kernel: of queries, which goes over key tiles, or of keys and values."""
    kind = Kind.GRAD_KEYS if of_keys else Kind.GRAD_QUERIES
    if picked := _picked_shape(target, kind, head_dim, dtype, query_tile, key_tile, tiles):
        return picked
    of = family(target)
    rows = key_tile if of_keys else query_tile
    if head_dim > VAST:
        return LaunchShape(4 if of is Family.CDNA else 8, 1, _descriptors(of, dtype))
    if of is Family.CDNA:
        return LaunchShape(min(4, max(1, rows // 16)), 1, False)
    # The sums of keys and values want more threads a row but where the tensor cores take 64 rows of four warps.
    wide = of is Family.BLACKWELL or (of is Family.AMPERE and head_dim > 64) or head_dim > 128
    narrow = dtype == "float32" or (of_keys and wide)
    # Four warps even for few keys: they share the columns, which one warp could not hold beside two sums.
    fewest = 4 if of_keys else 1
    warps = min(8, max(fewest, rows // (4 if dtype == "float32" or head_dim > 128 else 8 if narrow else 16)))
    crowded = of is Family.BLACKWELL and dtype != "float32" and of_keys
    # With two stages these spill under some release of Triton.
    third = {Family.HOPPER: of_keys and head_dim <= 64, Family.AMPERE: not of_keys and head_dim > 64}
    stages = 1 if head_dim > 128 else 3 if dtype != "float32" and third.get(of) else 2
    return LaunchShape(warps, stages, _descriptors(of, dtype), MOST_REGISTERS if crowded else None)


def cached_tile_sizes(target: str, head_dim: int, dtype: str, tiles: Tiles = ()) -> tuple[int, int]:
    """(query_tile, key_tile) to plan attention of a chunk of queries over a cache for, spilling nothing likewise."""
    if picked := _picked_tiles(target, Kind.CHUNK, head_dim, dtype, tiles):
        return picked
    of = family(target)
    if of not in (Family.CPU, Family.INTERPRETER, Family.CDNA) and head_dim <= VAST:
        if dtype == "float32" and head_dim > 64:
            return 32, 16
        if head_dim > 128:
            return (64 if of is Family.AMPERE else 128), 32
    return _tiles(of, head_dim, dtype)


def cached_shape(
    target: str, head_dim: int, dtype: str, query_tile: int, key_tile: int, *, tiles: Tiles = ()
) -> LaunchShape:
    """Warps and stages of a chunk's kernel: keys lie in two places, so there is no descriptor of them."""
    if picked := _picked_shape(target, Kind.CHUNK, head_dim, dtype, query_tile, key_tile, tiles):
        return picked
    shape = _shape(target, head_dim, dtype, query_tile, key_tile)
    return replace(shape, stages=min(3, shape.stages), tma=False)


def decode_tile_sizes(target: str, head_dim: int, dtype: str, tiles: Tiles = ()) -> tuple[int, int]:
    """(query_tile, key_tile) to plan attention of few queries over a cache for: at most DECODE_ROWS, on a CPU one."""
    if picked := _picked_tiles(target, Kind.DECODE, head_dim, dtype, tiles):
        return picked
    match family(target):
        case Family.CPU:
            return 1, _tiles(Family.CPU, head_dim, dtype)[1]
        case Family.INTERPRETER:
            return DECODE_ROWS, 32
    if dtype == "float32":
        return DECODE_ROWS, 32 if head_dim <= 128 else 16
    return DECODE_ROWS, 64 if head_dim <= 128 else 32 if head_dim <= VAST else 16


def decode_rows(target: str, head_dim: int, dtype: str) -> int:
    """The most rows of one program, each a query row of one head."""
    if dtype == "float32":
        return 32 if head_dim <= 64 else 16
    return 64 if head_dim <= 128 else 32 if head_dim <= VAST else 16


def decode_program_rows(rows: int) -> int:
    """The rows of a program that has `rows` to compute: a power of two that tensor cores take."""
    return max(16, 1 << (rows - 1).bit_length())


def decode_shape(target: str, head_dim: int, dtype: str, rows: int, key_tile: int, *, tiles: Tiles = ()) -> LaunchShape:
    """Warps and stages of a decode kernel, which waits for keys and values: two programs a multiprocessor find room."""
    if picked := _picked_shape(target, Kind.DECODE, head_dim, dtype, rows, key_tile, tiles):
        return picked
    if family(target) in (Family.CDNA, Family.INTERPRETER):
        return LaunchShape(4, 1, False)
    if dtype == "float32":
        return LaunchShape(4 if head_dim <= 64 else 8, 2, False)
    room = shared_memory_bytes(target) // 2 - rows * (head_dim + key_tile) * 2 - 4096
    stages = 1 + room // (4 * key_tile * head_dim)
    few = head_dim <= 64 or (rows == 16 and head_dim <= VAST)
    return LaunchShape(4 if few else 8, max(1, min(4, stages)), False, MOST_REGISTERS)


def decode_splits(target: str, processors: int, programs: int, iterations: int) -> int:
    """In how many parts to take the keys, where `programs` serve all heads and a program goes over at most
    `iterations` key tiles.

    `processors`: multiprocessors of the device.
    """
    wanted = 3 if family(target) is Family.INTERPRETER else 2 * processors // max(1, programs)
    return max(1, min(wanted, iterations))


def exact_columns(*, decoding: bool) -> int:
    """Columns that a Triton program sums at a time when it looks which rows a NaN may reach: few take few registers."""
    return 32 if decoding else 16
