"""The text of kernels -> an imported module, by way of the build cache.

Invariant: a text is imported once a process, from the folder that was published for it.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType

import triton

from sparsec.backends.triton.launches import FP_FUSION
from sparsec.runtime.build.cache import build_key, lookup, publish

_MODULE_FILE = "kernels.py"


class _TextLoader(SourceFileLoader):
    """Leaves no byte code beside the source: the cache's folders hold what was published, and nothing else is run."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def load_module(source: str) -> ModuleType:
    """Imports generated source from the build cache, once a process and text."""
    key = build_key("triton", triton.__version__, str(FP_FUSION), source)
    name = f"sparsec_triton_{key}"
    if name in sys.modules:
        return sys.modules[name]
    folder = lookup(key) or publish(key, {_MODULE_FILE: source.encode()})
    path = folder / _MODULE_FILE
    spec = importlib.util.spec_from_file_location(name, path, loader=_TextLoader(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module
