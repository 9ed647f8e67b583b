"""Heads that differ, from a file that a variable names, on two tensor parallel ranks: tokens against transformers."""

from __future__ import annotations

from checks import SIZES, check, compare, folder_of_run, freed_early, mixed, model_of, options
from models import Reference
from server import ask, served, settled

BY_HEAD = """
pattern heads_differ {
    causal
    where h % 4 == 0 attend window(64)
    where h % 4 == 1 attend sink(16) | window(32)
    otherwise attend sink(4) | window(200)
}
"""


def main() -> None:
    folder = folder_of_run()
    model, file = model_of(folder, "plain", ""), folder / "by_head.sparse"
    file.write_text(BY_HEAD)
    variables = {"SPARSEC_VLLM": f"{file}#heads_differ", "VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    two = (*options(1000, 1200), "--tensor-parallel-size", "2")
    with served(model, folder / "ranks.log", *two, variables=variables) as server:
        start = settled(server)
        requests = mixed(12, 1000, seed=3)
        answers = ask(server, requests)
        check(freed_early(server)[1] > 0, "no page was freed early")
        check(settled(server) == start, "pages are in use at the end")
    compare(Reference(model, BY_HEAD, SIZES), requests, answers, "heads that differ, on 2 tensor parallel ranks")


if __name__ == "__main__":
    main()
