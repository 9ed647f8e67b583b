"""Every text generated for every example -> a line with its SHA-256, for runs under other hash seeds and folders."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from generated import generated

import sparsec


def main(examples: Path) -> None:
    for path in sorted(examples.glob("*.sparse")):
        program = sparsec.load(path)
        print(path.name, program.patterns, program.models)
        for name in program.patterns:
            pattern = program.pattern(name)
            counts = (None, None) if pattern.heads else (8, 4)
            for what, text in generated(pattern.resolve(*counts), torch.float32).items():
                print(path.name, name, what, hashlib.sha256(text.encode()).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
