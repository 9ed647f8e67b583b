"""A sweep's `gpu_sweep.json` -> the picks of `sparsec/plan/target.py`, as its literal table.

    python tests/gpu/picks.py gpu_sweep.json

Invariant: only a row that gave the right result is picked, and where the rules do as well there is no pick.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsec.plan.picks import Family, Kind, Pick
from sparsec.plan.target import family

GAIN = 0.97
"""A pick takes at most this share of the time of what the rules give: less of a gain may be noise."""

SPILLING = 1.02
"""What spills on one pattern spills more on others."""

_Key = tuple[Family, Kind, int, str]


def picks_of(sweep: Mapping[str, Any]) -> dict[_Key, Pick]:
    """The fastest of the rows that are right, for each kind, head dimension and dtype where the rules are beaten.

    A row with an error, without a time, or whose result was not found to be right does not count; of equally fast ones
    the first does, and one that spills has to be faster by SPILLING. Raises KeyError or ValueError for data of another
    form.
    """
    of, best, ruled = family(sweep["target"]), {}, {}
    for row in sweep["rows"]:
        if row["error"] is not None or row["right"] is not True or row["ms"] is None:
            continue
        key = of, Kind(row["kind"]), int(row["head_dim"]), str(row["dtype"])
        if row["rule"]:
            ruled[key] = row["ms"]
        if key not in best or _cost(row) < _cost(best[key]):
            best[key] = row
    return {
        key: Pick(*(row[name] for name in ("query_tile", "key_tile", "warps", "stages", "maxnreg")))
        for key, row in sorted(best.items(), key=_order)
        if not row["rule"] and row["ms"] <= GAIN * ruled.get(key, math.inf)
    }


def _cost(row: Mapping[str, Any]) -> float:
    return float(row["ms"]) * (SPILLING if row["spill_bytes"] else 1.0)


def _order(item: tuple[_Key, Any]) -> tuple[int, int, str]:
    _, kind, head_dim, dtype = item[0]
    return list(Kind).index(kind), head_dim, dtype


def text_of(picks: Mapping[_Key, Pick]) -> str:
    """The lines of the table, as the formatter leaves them."""
    return "".join(
        f'    (Family.{of.name}, Kind.{kind.name}, {head_dim}, "{dtype}"): {_literal(pick)},\n'
        for (of, kind, head_dim, dtype), pick in picks.items()
    )


def _literal(pick: Pick) -> str:
    most = "" if pick.maxnreg is None else f", {pick.maxnreg}"
    return f"Pick({pick.query_tile}, {pick.key_tile}, {pick.warps}, {pick.stages}{most})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    print(text_of(picks_of(json.loads(parser.parse_args().file.read_text()))), end="")


if __name__ == "__main__":
    main()
