"""Layers that differ in one model, and prefixes that are in the cache: every token against transformers."""

from __future__ import annotations

import json

from checks import NEW, check, compare, folder_of_run, freed_early, mixed, model_of, options
from models import Reference, Sizes, prompt
from server import Asked, ask, metrics, served, settled

LONGGEN = """
pattern full_layer { causal  attend full }
pattern blocks { block 64  causal  attend sink(1b) | window(4b) | stride(16b, phase = 3b) }
model longgen {
    layers 6
    where l >= L // 3 and l < 2 * L // 3 use full_layer
    otherwise use blocks
}
"""
SIX = Sizes(layers=6)
PAGES, LONGEST = 4000, 3000


def main() -> None:
    folder = folder_of_run()
    model, file = model_of(folder, "plain_6", "", SIX), folder / "longgen.sparse"
    file.write_text(LONGGEN)
    named = json.dumps({"sparsec": {"path": str(file.resolve()), "name": "longgen"}})
    started = (*options(PAGES, LONGEST + 200), "--additional-config", named)
    with served(model, folder / "longgen.log", *started) as server:
        start = settled(server)
        requests = mixed(16, LONGEST, seed=2)
        answers = ask(server, requests)
        pages, freed, _ = freed_early(server)
        print(f"LongGen, 6 layers: {freed} of {pages} pages of all groups freed early", flush=True)
        check(freed > 0, "no page was freed early")
        shared = [Asked(requests[n].prompt + prompt(40 + n, n), NEW) for n in range(16)]
        again = ask(server, shared)
        hits = metrics(server)["vllm:prefix_cache_hits_total"]
        check(hits > 0, "no prefix was found in the cache")
        check(settled(server) == start, "pages are in use at the end")
    reference = Reference(model, LONGGEN, SIX)
    compare(reference, requests, answers, "LongGen")
    compare(reference, shared, again, f"LongGen, {hits:.0f} tokens of prefixes from the cache")


if __name__ == "__main__":
    main()
