"""Killed, cancelled midway, asked past the limit, short of pages: right tokens, no page lost; and what is refused."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

from checks import SINK_WINDOW, SIZES, check, compare, folder_of_run, mixed, model_of, options
from models import Reference, prompt
from server import Asked, ask, metrics, refusal, served, settled

LONGEST = 2048


def main() -> None:
    folder = folder_of_run()
    model = model_of(folder, "sink_window", SINK_WINDOW)
    reference = Reference(model, SINK_WINDOW, SIZES)
    started = options(600, LONGEST + 64)
    with served(model, folder / "killed.log", *started) as server:
        threading.Thread(target=_ended, args=(server, mixed(16, LONGEST, seed=4)), daemon=True).start()
        time.sleep(2)
        server.kill()
        check(server.process.returncode != 0, "the server ended by itself")
    with served(model, folder / "faults.log", *started) as server:
        start = settled(server)
        draw = random.Random(0)
        requests = [
            replace(each, cancel_after=draw.uniform(0.2, 3), tokens=200) if n % 2 else each
            for n, each in enumerate(mixed(40, LONGEST - 256, seed=5))
        ]
        answers = ask(server, requests)
        cancelled = sum(answer.status == 0 for answer in answers)
        check(cancelled > 0, "no request was cancelled")
        check(settled(server) == start, "cancelled requests hold pages")
        too_long = ask(server, [Asked(prompt(LONGEST + 100, n), 4) for n in range(4)])
        check(all(each.status == 400 for each in too_long), f"prompts past the limit got {too_long}")
        after = mixed(8, 500, seed=6)
        after_answers = ask(server, after)
        check(settled(server) == start, "pages are in use at the end")
    compare(reference, requests, answers, f"after a restart, with {cancelled} of 40 requests cancelled")
    compare(reference, after, after_answers, "after prompts past the limit")
    with served(model, folder / "short.log", *options(110, LONGEST + 64)) as server:
        start = settled(server)
        requests = [replace(each, tokens=120) for each in mixed(24, LONGEST - 256, seed=7)]
        answers = ask(server, requests)
        preempted = metrics(server)["vllm:num_preemptions_total"]
        check(settled(server) == start, "pages are in use at the end")
    drafts = '{"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}'
    for what, wrong in (("speculative", ("--speculative-config", drafts)), ("fp8", ("--kv-cache-dtype", "fp8"))):
        said = refusal(model, folder / f"{what}.log", *started, *wrong)
        check(what in said, f"expected a refusal of {what}, got {said!r}")
        print(f"refused: {said}", flush=True)
    compare(reference, requests, answers, f"with 109 pages for 24 requests, {preempted:.0f} times preempted")


def _ended(server: object, requests: list[Asked]) -> None:
    """Asks a server that will be killed."""
    try:
        ask(server, requests)  # type: ignore[arg-type]  # a Server
    except Exception as error:  # the connection breaks, in one way or another
        print(f"the killed server's clients got {type(error).__name__}", flush=True)


if __name__ == "__main__":
    main()
