"""`python -m sparsec`: the same command line as `sparsec`."""

from __future__ import annotations

from sparsec.cli.main import main

if __name__ == "__main__":
    main()
