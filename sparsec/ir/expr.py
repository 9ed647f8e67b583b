"""Integer and boolean expressions in closed form: what a kernel computes per query tile, and per pair in a partial tile.

One tree, several readers: `evaluate` runs it here, `codegen` prints it as C++ or Triton, a prover can state it.
Invariant: `//` and `%` round toward minus infinity; divisors are positive.
"""
