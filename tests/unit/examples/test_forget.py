"""`examples/forget.py`: what it asks, and that it measures every method; the model is untrained."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch
from facts import CLOSE, FIRST_LETTER, FIRST_VALUE, OPEN, facts, llama, train
from forget import SHARES, Result, measured, methods, points, report, trade

LENGTH, ASKED = 128, 3


def test_a_question_has_its_answer_in_the_context() -> None:
    of = facts(3, LENGTH, ASKED, torch.Generator().manual_seed(0))
    assert of.prompt.shape == (3, LENGTH + ASKED + 3)
    for row in range(3):
        symbols = of.prompt[row].tolist()
        context, questions = symbols[1 : 1 + LENGTH], symbols[2 + LENGTH : -1]
        answers = dict(zip(questions, of.values[row].tolist(), strict=True))
        assert answers == dict(zip(of.again[row].tolist(), of.values_again[row].tolist(), strict=True))
        for key, value in answers.items():
            assert context.count(key) == 1 and context[context.index(key) + 1] == FIRST_VALUE + value
        letters = []
        for n, symbol in enumerate(context):
            if symbol == OPEN:
                opened = context[n + 1]
            elif symbol == CLOSE:
                assert context[n + 1] == opened and 1 + n in of.closed[row].tolist()
                letters.append(opened - FIRST_LETTER)
        assert letters == of.letters[row].tolist() and len(letters) == LENGTH // 16


@pytest.mark.kernels
def test_every_method_is_measured() -> None:
    model, of = llama(32), facts(2, LENGTH, ASKED, torch.Generator().manual_seed(0))
    assert 0 <= train(model, LENGTH, steps=2, tokens=2 * LENGTH) < 0.5
    wanted = methods(of.prompt, target="torch")
    ends = {
        name: {setting: each[setting] for setting in (*each,)[:: max(len(each) - 1, 1)]}
        for name, each in wanted.items()
    }
    assert [len(each) for each in wanted.values()] == [1, *[4] * 4] and [len(each) for each in ends.values()] == [
        1,
        *[2] * 4,
    ]
    results = measured(model.eval(), [of], ends)
    dense, exact = results["dense"][""], results["FastGen"]["recovery 1.0"]
    tokens = LENGTH + ASKED + 3 + ASKED
    assert dense.nbytes == exact.nbytes == tokens * 2 * 2 * 2 * 16 * 4, "layers, KV heads, keys and values, float32"
    assert torch.equal(dense.answers[0], exact.answers[0])
    for name in ("SnapKV", "AdaKV"):
        most, least = (each.nbytes for each in results[name].values())
        assert dense.nbytes > most > least
    kept = [round(share * (tokens - ASKED)) for share in (SHARES[0], SHARES[-1])]
    assert [each.nbytes / dense.nbytes for each in results["streaming"].values()] == [n / tokens for n in kept]
    table = report(results, [of])
    assert len(table.splitlines()) == 10 and "recovery 0.6" in table
    picture = ElementTree.fromstring(trade(points(results, [of]), "title"))
    assert sum(each.tag.endswith("circle") for each in picture) == 9 + 5, "settings, and the names of methods"


def test_found_is_the_share_of_right_answers() -> None:
    of = facts(2, LENGTH, 4, torch.Generator().manual_seed(0))
    wrong = of.values_again.clone()
    wrong[0, 1:] += 1
    assert Result((of.values_again, wrong), 0).found([of, of]) == 13 / 16
