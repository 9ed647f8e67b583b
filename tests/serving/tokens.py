"""64 requests at once, greedy: every token against transformers; pages freed, and the peak against vLLM's backend."""

from __future__ import annotations

from checks import PAGE, SINK_WINDOW, SIZES, check, compare, folder_of_run, freed_early, mixed, model_of, options
from models import Reference, prompt
from server import Asked, ask, served, settled

LONGEST, PAGES = 8192, 4000
LONG_NEW = 160
"""Of the longest prompts, so that all of them are there at once."""
MOST = 0.15
"""Of the dense backend's pages, for 8k-token prompts with sink + window."""


def main() -> None:
    folder = folder_of_run()
    model, plain = model_of(folder, "sink_window", SINK_WINDOW), model_of(folder, "plain", "")
    started = options(PAGES, LONGEST + LONG_NEW + PAGE)
    long = [Asked(prompt(LONGEST, 77 + n), LONG_NEW) for n in range(8)]
    with served(model, folder / "tokens.log", *started) as server:
        start = settled(server)
        requests = mixed(64, 4096, seed=1)
        answers = ask(server, requests)
        pages, freed, most = freed_early(server)
        print(f"64 requests: {freed} of {pages} pages freed early, at most {most} at a time of one request", flush=True)
        check(freed > 0, "no page was freed early")
        server.peak = 0.0
        long_answers = ask(server, long)
        peak, end = server.peak, settled(server)
        check(end == start, f"{end:.4f} of the pages are in use at the end, {start:.4f} at the start")
    with served(plain, folder / "tokens_dense.log", *started) as server:  # where the plug-in does nothing
        ask(server, long)
        dense = server.peak
        check(freed_early(server) == (0, 0, 0), "pages were freed where no pattern is asked for")
        own = ask(server, requests[:16])
    share = peak / dense
    print(f"8 prompts of {LONGEST}: peak {peak * PAGES:.0f} pages, dense {dense * PAGES:.0f}: {share:.3f}x", flush=True)
    reference = Reference(model, SINK_WINDOW, SIZES)
    compare(reference, requests, answers, "64 requests of mixed lengths")
    compare(reference, long[:2], long_answers[:2], f"prompts of {LONGEST}")
    compare(Reference(plain, "pattern p { causal  attend full }", SIZES), requests[:16], own, "no pattern asked for")
    check(share <= MOST, f"expected at most {MOST}x the dense backend's pages, got {share:.3f}x")


if __name__ == "__main__":
    main()
