"""`sparsec profile` as a user meets it: a saved model, the table, the file, and when nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from invoking import invoke
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import sparsec
from sparsec.integrations.transformers import apply
from sparsec.integrations.transformers.profiling import punctuation_ids, special_ids

pytestmark = pytest.mark.kernels

WORDS = ["<pad>", "<s>", "[INST]", ".", ",", "...", "!", "a", "b", "c", "d", "dot."]
TEXT = "<s> [INST] a b . c d , a ... dot. b c d . a b c d a ! " + "a b c d " * 8


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile") / "model"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": ["[INST]"]})
    fast.save_pretrained(folder)
    folder.with_name("prompt.txt").write_text(TEXT)
    return folder


def test_special_and_punctuation_tokens_are_those_of_the_tokenizer(saved: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(saved)
    assert special_ids(tokenizer) == {0, 1, 2}
    assert punctuation_ids(tokenizer) == {3, 4, 5, 6}


def test_fastgen_writes_a_model_and_prints_its_groups(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.sparse"
    result = invoke("profile", saved, "--prompt", saved.with_name("prompt.txt"), "--recovery", "0.5", "-o", out)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["layer", "group", "policy", "recovery", "bytes"]
    assert [line.split()[:2] for line in lines[2:6]] == [["0", "0"], ["0", "1"], ["1", "0"], ["1", "1"]]
    assert all(float(line.split("%")[0].split()[-1]) >= 50 for line in lines[2:6])
    assert lines[7].startswith(f"wrote {out}: ") and len(lines) == 8
    assert invoke("check", out).stdout == "1 file: no problems\n"
    assert invoke("fmt", "--check", out).exit_code == 0
    assert out.read_text().splitlines()[4:6] == ["param special_ids = [0..3]", "param punctuation_ids = [3..7]"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.sparse"]
    model = apply(LlamaForCausalLM.from_pretrained(saved).eval(), out, target="torch")
    tokens = model.generate(torch.tensor([[1, 2, 7, 8, 3, 9]]), max_new_tokens=4, do_sample=False)
    assert tokens.shape == (1, 10)


def test_streaming_divides_the_groups(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.sparse"
    options = ("--method", "streaming", "--sink", "2", "--recent", "8", "--recovery")
    result = invoke("profile", saved, "--prompt", saved.with_name("prompt.txt"), *options, "0.2", "-o", out)
    assert result.exit_code == 0
    assert "layer_0" in sparsec.load(out).patterns and "sink(first) | window(latest)" in out.read_text()
    prompt = saved.with_name("prompt.txt")
    every = invoke("profile", saved, "--prompt", prompt, *options, "1", "-o", out, "--force")
    assert every.stdout.count(" full ") == 4 and "attend full" in out.read_text()
    assert "4 of the 4 KV groups see everything; all together hold 100.0% of the prompt's keys" in every.stdout


BAD = {
    "recovery": (["--recovery", "1.5"], "--recovery"),
    "nan": (["--recovery", "nan"], "expected a number from 0 to 1, got nan"),
    "method": (["--method", "duo"], "--method"),
    "other method": (["--sink", "4"], "expected --method streaming with it, got fastgen"),
    "fastgen's": (["--method", "streaming", "--local", "0.2"], "expected --method fastgen with it, got streaming"),
    "no folder": (["-o", "no/such/folder/m.sparse"], "No such file or directory"),
    "device": (["--device", "quantum"], "expected a device of this machine"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_command_line_writes_nothing(saved: Path, tmp_path: Path, case: str) -> None:
    options, message = BAD[case]
    out = tmp_path / "m.sparse"
    result = invoke("profile", saved, "--prompt", saved.with_name("prompt.txt"), "-o", out, *options)
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert message in result.stderr


def test_files_that_are_refused(saved: Path, tmp_path: Path) -> None:
    prompt, out, text = saved.with_name("prompt.txt"), tmp_path / "m.sparse", tmp_path / "text"
    text.write_bytes(b"a b \xff")
    assert "expected a prompt of UTF-8 text" in invoke("profile", saved, "--prompt", text, "-o", out).stderr
    text.write_text("")
    assert (
        "expected a prompt with tokens, got an empty one"
        in invoke("profile", saved, "--prompt", text, "-o", out).stderr
    )
    empty = invoke("profile", tmp_path, "--prompt", prompt, "-o", out)
    assert (empty.exit_code, empty.stdout) == (2, "")
    assert empty.stderr.startswith("error: expected a causal LM that save_pretrained wrote in ")
    out.write_text("mine")
    exists = invoke("profile", saved, "--prompt", prompt, "-o", out)
    assert (exists.exit_code, exists.stderr) == (2, f"error: {out} exists: --force replaces it\n")
    assert out.read_text() == "mine"
