"""What a backend is: how it turns the plans of a compilation into kernels that run, here and now or from a folder.

`sparsec.backends.registry` names the backends and says what is known of each before it is imported. Invariant: nothing
here imports torch, Triton or a compiler, so that whoever prints sources needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sparsec.backends.absent import no_kept, no_mass, no_stored
from sparsec.backends.built import Built
from sparsec.backends.paged import PagedKernel, no_paged
from sparsec.diagnostics.model import SparsecError
from sparsec.ir.bands.band import InputTest
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.pipeline import Compilation
from sparsec.plan.launch import CachedLaunch, Launches
from sparsec.sema.model import ResolvedPattern

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sparsec.runtime.kv.lists import KeptLists


class Unavailable(SparsecError):
    """This machine lacks what a backend builds its kernels with; `lack` says so in a few words."""

    lack = "something is missing"


@dataclass(slots=True, eq=False)  # frozen ones are made in twice the time, which a step of decoding would feel
class Lookup:
    """What a call's input says, where kernels look it up: one for each test of `KernelPlan.inputs`, in their order.

    `data` is contiguous, [b, x, ...] with b 1 or the batch and x 1, the KV heads or the query heads: sequence n and
    query head h read [n if b > 1 else 0, h * x // H]; the same of `keys`, with a b and an x of its own. Positions i and
    j are those of the plan's expressions; what lies outside `data` is not picked. By `test.asks`:
    MARKED, COLUMN, SLASH, SLASH_TILE: int32 [b, x, n + 1], at m how many of the numbers first .. first + m - 1 are
    picked: of j, j // width, i // height - j // width, or i // height * height - j. A number p is picked iff
    data[p - first + 1] > data[p - first]; of a range of numbers some are, and all are, by one difference too. Of MARKED
    with a cache n may be more than the keys, and numbers of what is no key are any.
    Of COLUMN `ordered`, int32 [b, x, c], has those picked in ascending order, then n, where the plan gathers `columns`.
    ROW: int32 or int64 [b, x, Nq, c], an entry outside 0 .. ceil(Nk / width) - 1 being absent. Row r is the call's
    query r. `ordered`, int32, the same in ascending order, negative ones last as ABSENT, where the plan `looks_up` it.
    CELL: uint8 [b, x, rows, columns]: row r is that of the queries i with i // height = q0 // height + r, where q0 is
    the position of the call's first query (with documents 0).
    LABEL: int32 [b, x, Nq] of the call's queries, `keys` [b, x, Nk] of its keys, less than 0 for none.
    ANCESTOR: uint8 [b, 1, n, n]: row and column 0 are position nk - n; every key before it is picked.
    KEY_BELOW, QUERY_BELOW, NEAR: int32 [b, x], not less than 0.
    """

    test: InputTest
    data: Tensor
    first: int = 0
    keys: Tensor | None = None
    ordered: Tensor | None = None


class ForwardKernel(Protocol):
    """Attention on tensors that `runtime.module` has checked.

    q [B, H, Nq, D], k [B, G, Nk, D], v [B, G, Nk, Dv], any strides; row r of q sits at absolute position q_offset +
    r. `scale` None means the pattern's, else 1/sqrt(D). `lists` are the draw tables of `runtime.draws`. `sink` is
    float32 [H] where the pattern has a learned sink; `cu_seqlens` int32 [documents + 1] where it has documents (then B
    is 1 and Nq is Nk).
    `inputs`: what the plan's `inputs` say, in their order. `key_bias` is [b, x, Nk], b 1 or B and x 1, the KV heads or
    the query heads, of any strides, where the pattern has it: float32, or float64 for float64 inputs. A key whose bias
    is -inf is seen by no query.
    """

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """out [B, H, Nq, Dv], 0 in rows that see no key; natural-log LSE [B, H, Nq], -inf there (or the sink).

        Both are contiguous. The LSE is float32, or float64 for float64 inputs.
        """
        ...


class MassKernel(Protocol):
    """What each key has of the attention of a ForwardKernel of the same pattern."""

    def build(self) -> None:
        """As of a BackwardKernel."""
        ...

    def mass(
        self,
        q: Tensor,
        k: Tensor,
        lse: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> Tensor:
        """float32 [B, H, Nk], contiguous: of each key, the sum over the call's queries that see it of exp(s - lse).

        s is the score as the soft-max takes it, scaled and changed by the pattern's modifiers. `lse` is what the
        forward kernel gave, any strides: where it is -inf the row adds 0, and a learned sink, which has its part in it,
        counts for no key. A key that no query sees has 0, and what the two of a pair hold, NaN included, has no effect
        on each other if the query does not see the key. Two runs give the same bits: no atomic additions. Memory is
        that of the call's tensors and of tiles. The other arguments are those of a ForwardKernel.
        """
        ...


class OracleKernel(ForwardKernel, Protocol):
    """A forward kernel that is plain torch, which autograd goes through; it is made for a pattern, not for a plan."""

    @property
    def pattern(self) -> ResolvedPattern: ...

    def with_inputs(self, given: Sequence[Tensor]) -> OracleKernel:
        """The kernel of a call with these tensors of the pattern's inputs, all in order."""
        ...

    def mass(
        self,
        q: Tensor,
        k: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> Tensor:
        """As of a MassKernel."""
        ...


class BackwardKernel(Protocol):
    """The gradients of the attention that a ForwardKernel of the same pattern computed."""

    def build(self) -> None:
        """Does now what a compiler would do at the first call. Raises Unavailable, or BuildError if it fails."""
        ...

    def backward(
        self,
        grad_out: Tensor,
        grad_lse: Tensor | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
        of_bias: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Gradients of q, k and v, contiguous and like them, and of the sink (None without one).

        With `of_bias` also those of `key_bias`, as of a bias of every query head of every sequence of its own: [B, H,
        Nk], of the type of the LSE (None without it).
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class KeyMass:
    """What `CachedKernel.attend` adds the mass of keys to, as of a MassKernel: sums, float32 [B, H, keys], contiguous,
    by position; `groups`: bool [kv_heads] on the CPU, the KV groups whose heads get it (None: all)."""

    sums: Tensor
    groups: Tensor | None = None


@dataclass(slots=True, eq=False)
class Cached:
    """A cache as kernels see it, B sequences.

    keys [B, slots, D], values [B, slots, Dv], contiguous; what no key has been stored in may hold anything, NaN too.
    Of a kernel of `Kernels.make_stored` rows are those of `runtime.kv.stored`.
    lengths: int32 [B], the tokens that each sequence has already. counts: int32 [B], how many of the call's N tokens
    are its own: the last ones of the N, the rest before them being padding (None: all N).
    places: int32 [kv_heads, regions, 2]: base and capacity of each region, 0 and 0 where a group has fewer.
    marks: what the cache remembers of inputs, as of `runtime.inputs.remembered`. kept: lists of marked keys, and what a
    call says of its own keys; `attend` adds those that are marked, and sees them there.
    mass: where the mass of keys is asked for, of a kernel that `weighs`; it has a place for each key of each sequence.
    reach: with inputs, the most tokens that a sequence can have after the call, as far as the host knows; not said to a
    kernel that `advances` and takes lists alone.
    live: int32 [B], 0 where a sequence is released, for which `counts` has no token (None: none is), else 1.
    state, max_len: as of `runtime.kv.cache.KVCache`, for a kernel that `advances`: storing then counts the tokens in
    state and lengths, and raises CallError before anything is written if a sequence would have more than max_len.
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor
    counts: Tensor | None
    places: Tensor
    state: Tensor | None = None
    max_len: int = POSITION_LIMIT
    marks: tuple[Tensor, ...] = ()
    kept: KeptLists | None = None
    mass: KeyMass | None = None
    reach: int = POSITION_LIMIT
    live: Tensor | None = None
    checked: bool = False
    """Set by a kernel that has found the tensors, counts aside, to be what it takes."""
    made: object = None
    """Set by a kernel: what it has made of the tensors, `checked` ones."""

    def numbers(self, new: int) -> tuple[list[int], list[int]]:
        """Lengths and counts on the host."""
        return self.lengths.tolist(), self.counted(new).tolist()

    def counted(self, new: int) -> Tensor:
        """`counts` of a call of `new` tokens."""
        return self.lengths.new_full((len(self.lengths),), new) if self.counts is None else self.counts


class CachedKernel(Protocol):
    """Attention to the keys of a cache and of the call, and their storing; `source` is its text, empty without one.

    Attention comes before storing, for a new key may take the slot of one that a query still sees; neither reads a
    length on the host.
    """

    @property
    def plan(self) -> CachedLaunch: ...

    @property
    def source(self) -> str: ...

    @property
    def advances(self) -> bool:
        """Whether storing counts the tokens where a cache's `state` is given."""
        ...

    @property
    def weighs(self) -> bool:
        """Whether it gives the mass of keys."""
        ...

    def build(self) -> None:
        """As of a BackwardKernel."""
        ...

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cache: Cached,
        *,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        store: bool = False,
        checked: bool = False,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention of q [B, H, N, D] to the cached keys and to k [B, G, N, D], v [B, G, N, Dv], any strides.

        With `store` these are then stored, as by the method; else the cache stays as it is. `checked`: the shapes,
        dtypes and devices of q, k, v and sink are known to be right.

        Row r of sequence b stands at position lengths[b] + counts[b] - N + r, and Nk is lengths[b] + counts[b].
        `lists`: the tables of `runtime.draws` of `CachedLaunch.chunks`, class by class, from query block 0 on; `sink`
        float32 [H] where the pattern has one. Returns out [B, H, N, Dv] and the natural-log LSE, float32 [B, H, N],
        contiguous; a row that sees no key has 0 and -inf (or the sink), and so has padding, without the sink.
        `key_bias` is of the keys from position 0 on, in the cache or in the call.
        """
        ...

    def store(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        """Writes the last counts[b] rows of k [B, G, N, D] and v [B, G, N, Dv] to their slots in the cache.

        A key that later ones of the same call displace, or that lies past the arena, is not written.
        """
        ...


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels of one compilation; all but the forward one are made when first needed."""

    forward: ForwardKernel
    make_backward: Callable[[], BackwardKernel]
    make_cached: Callable[[], CachedKernel]
    make_mass: Callable[[], MassKernel] = no_mass
    make_kept: Callable[[], CachedKernel] = no_kept
    make_paged: Callable[[], PagedKernel] = no_paged
    make_stored: Callable[[str, bool], CachedKernel] = no_stored
    """Over a cache that stores keys and values in a dtype that is named; whether it has lists of marked ones."""


@dataclass(frozen=True, slots=True)
class FolderKernels:
    """The kernels of a folder; None for those that it has not."""

    forward: ForwardKernel
    backward: BackwardKernel | None
    cached: CachedKernel | None
    mass: MassKernel | None
    kept: CachedKernel | None
    paged: PagedKernel | None


PARTS = ("forward", "cached", "backward")
"""What a source is of: the forward pass, attention over a KV cache, the gradients."""
KEPT, PAGED = "kept", "paged"
"""The same over a cache that has marked keys in lists, for a pattern with inputs of kind tokens; over pages."""


class Backend(Protocol):
    """One way to run attention. What is known of it before it is imported stands in `registry.BACKENDS`."""

    def target_of(self, device: torch.device) -> str:
        """The target name of a device, its own, as of `plan.target`. Raises CallError for one without plans."""
        ...

    def check_runs(self, device: torch.device) -> None:
        """Raises CallError for a device where its kernels can be made and not run."""
        ...

    def check_builds(self) -> None:
        """Raises Unavailable where this machine lacks what building takes."""
        ...

    def kernels(self, compilation: Compilation) -> Kernels:
        """The kernels that run here. Raises Unavailable, BuildError."""
        ...


class Oracle(Protocol):
    """What backends are held to: it has one kernel, for any device."""

    def kernel(self, pattern: ResolvedPattern) -> OracleKernel: ...


class Builder(Backend, Protocol):
    """A backend with generated text, whose kernels `sparsec compile` builds for machines that need not be there."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Those whose versions a folder records."""
        ...

    def sources(self, compilation: Compilation, parts: Sequence[str]) -> dict[str, str]:
        """The text of some PARTS, KEPT or PAGED; needs neither torch nor a compiler. Raises NoCache, Unavailable."""
        ...

    def build(self, compilation: Compilation, parts: Sequence[str], progress: Callable[[str], None]) -> Built:
        """Builds some PARTS, KEPT or PAGED for the compilation's target, telling each to `progress`, from any thread.

        Raises SparsecError if the compiler fails.
        """
        ...

    def check_needs(self, needs: Any) -> None:
        """Raises CallError unless this machine has what `Built.needs` says; KeyError or TypeError for other data."""
        ...

    def load(self, launches: Launches, folder: Path, files: Mapping[str, bytes]) -> FolderKernels:
        """The kernels of the files that `build` gave, which lie in `folder`. Raises KeyError for a file that is not
        there."""
        ...
