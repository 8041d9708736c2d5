"""YAML files of settings: bombs, loops of aliases, depth and size end in one paragraph, at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mllmrec.cli.main import main
from mllmrec.cli.verbs import app
from mllmrec.errors import SettingsError
from mllmrec.pipeline.recipe import load_recipe, read_yaml

LEVELS = 30
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, LEVELS))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, LEVELS))
HOSTILE = {
    "aliases within aliases": (BOMB, "more than 10,000 values, its aliases written out"),
    "merges within merges": (MERGES, "more than 10,000 values, its aliases written out"),
    "a block within itself": ("dataset: shop\nsft: &s\n  tag: *s\n", "2: what the anchor in this line names contains"),
    "a list within itself": ("sft: &s [*s]\n", "1: what the anchor in this line names contains itself"),
    "a merge of itself": ("sft: &s\n  <<: *s\n", "contains itself by an alias"),
    "depth": ("dataset: " + "[" * 100_000, "lists or blocks more than 50 deep"),
    "depth in blocks": ("".join(f"{' ' * n}a:\n" for n in range(300)), "lists or blocks more than 50 deep"),
    "size": ("# " + "x" * (1 << 20), "more than 256 KB"),
    "values": ("sft: [" + "1, " * 20_000 + "1]", "more than 10,000 values"),
    "digits": ("seed: " + "9" * 5000, "not valid YAML"),
    "no date": ("dataset: 2020-99-99", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    started = time.monotonic()
    with pytest.raises(SettingsError) as error:
        load_recipe(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("words", [["run", "{}"], ["sft", "--config", "{}"]])
def test_a_bomb_ends_every_verb_that_reads_it_in_a_paragraph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(BOMB)
    with pytest.raises(SystemExit) as stopped:
        main([word.replace("{}", str(path)) for word in words])
    assert stopped.value.code == 2
    assert "aliases written out" in " ".join(capsys.readouterr().err.split())
    assert not app.config, "what one command line named doesn't fill the next one's flags"


def test_ordinary_aliases_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("dataset: shop\nsft: &s {tag: a, lr: 0.001}\ngrpo: {<<: *s, tag: b}\nempty:\n")
    assert read_yaml(path) == (
        {"dataset": "shop", "sft": {"tag": "a", "lr": 0.001}, "grpo": {"tag": "b", "lr": 0.001}, "empty": None},
        [],
    )
    path.write_text("")
    assert read_yaml(path) == (None, [])
