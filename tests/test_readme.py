"""What the documents tell a reader to type is taken by the real command line, and the README's own-data story runs."""

from __future__ import annotations

import glob
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cyclopts import App
from PIL import Image

from mllmrec.cli.main import main, take_globals
from mllmrec.cli.verbs import app
from mllmrec.pipeline.own import ALIGNED, PASSES
from mllmrec.pipeline.recipe import load_recipe

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TYPED = re.compile(r"^(?: {4}|\$ )(mllmrec (?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
MENTIONED = re.compile(r"`(?:torchrun -m |accelerate launch -m )?(mllmrec [^`]*)`")


def typed(text: str) -> Iterator[tuple[int, list[str]]]:
    """(offset, words) of each command line in the code blocks of a document."""
    for found in TYPED.finditer(text):
        yield found.start(), shlex.split(found[1].replace("\\\n", " "), comments=True)


def commands() -> Iterator[tuple[str, list[str]]]:
    """(file:line, words) of all command lines, those mentioned in a sentence included unless they stop short."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        mentioned = ((found.start(), shlex.split(found[1])) for found in MENTIONED.finditer(text))
        complete = ((at, words) for at, words in mentioned if "..." not in words and not is_bare(words))
        for at, words in (*typed(text), *complete):
            yield f"{path.name}:{text[:at].count(chr(10)) + 1}", words


def is_bare(words: list[str]) -> bool:
    """Whether only a verb is named, as one speaks of it."""
    return len(words) <= 3 and verb_of(words[1:]) is not None


def verb_of(words: list[str]) -> App | None:
    """The verb that these words name, without anything behind it; None when they name none."""
    group: App = app
    for word in words:
        if word not in group:
            return None
        group = group[word]
    return group


def test_help_lists_the_verbs_as_the_readme_does(capsys: pytest.CaptureFixture[str]) -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## Verbs")[1].split("\n## ")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    told = dict.fromkeys(name.split()[0] for cell in cells for name in re.findall("`([^`]+)`", cell))
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.findall(r"│ ([a-z][a-z-]*) {2,}[A-Z]", capsys.readouterr().out) == list(told)


COMMANDS = list(commands())


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=[f"{place} {words[1]}" for place, words in COMMANDS])
def test_a_command_of_the_documents_is_taken(place: str, words: list[str]) -> None:
    rest, config, _ = take_globals(words[1:])
    app.parse_args(rest, exit_on_error=False, print_error=False)
    named = {"run": rest[1:2], "doctor": rest[rest.index("--plan") + 1 :][:1] if "--plan" in rest else []}
    for recipe in [*named.get(rest[0], []), *([config] if config else [])]:
        assert load_recipe(recipe).blocks, place


def test_commands_are_found_in_code_and_in_sentences() -> None:
    places = {place.split(":")[0] for place, _ in COMMANDS}
    assert {"README.md", "results.md"} <= places
    words = [" ".join(words) for _, words in COMMANDS]
    assert "mllmrec doctor --plan movielens --gpu 24" in words
    assert any(line.startswith("mllmrec run own") and line.endswith("--title-column title") for line in words)


def verbs_of(group: App) -> Iterator[str]:
    for name in group:
        if not name.startswith("-"):
            yield from (f"{name} {each}" for each in verbs_of(group[name]))
            if group[name].default_command is not None:
                yield name


def test_the_table_of_verbs_is_that_of_the_command_line() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## Verbs")[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    told = [verb for cell in first_cells for verb in re.findall("`([^`]+)`", cell)]
    assert sorted(told) == sorted(verbs_of(app))


# ---- the story of one's own data, on fifty made-up things and a backbone made on the spot

SMALLER = {
    "sft": "--limit 48 --epochs 1 --batch 8 --accum 1 --lr 5e-3 --eval-users 8 --max-prompt-tokens 512",
    "assess": "--limit 24 --orders 1 --max-prompt-tokens 2048",
    "grpo": "--limit 8 --batch 16 --accum 1 --num-generations 4 --max-completion-length 12 --eval-users 8",
}
BACKBONE = "mllmrec backbone tiny --dataset shop --out Qwen3-4B --layers 2 --width 32 --heads 2 --vocab 600"


def write_interactions(folder: Path) -> None:
    """Seventy customers of a shop with fifty things, and a picture of each."""
    rng = random.Random(7)
    rows = [
        f"u{user},t{thing},{1_000 * user + step},Thing number {thing}\n"
        for user in range(70)
        for step, thing in enumerate(rng.sample(range(50), 13))
    ]
    (folder / "interactions.csv").write_text("user,item,timestamp,title\n" + "".join(rows), encoding="utf-8")
    images = folder / "data" / "shop" / "images"
    images.mkdir(parents=True)
    for thing in range(50):
        colours = np.random.default_rng(thing).integers(0, 256, (24, 16, 3), dtype=np.uint8)
        Image.fromarray(colours).save(images / f"t{thing}.png")


def story() -> list[list[str]]:
    """The commands of the README's section, with a backbone that is made in place of one that is fetched."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Your own data")[1].split("\n## ")[0]
    lines = [words for _, words in typed(section)]
    lines = [shlex.split(BACKBONE) if words[1:3] == ["fetch", "backbone"] else words for words in lines]
    return [[*words[1:], *SMALLER.get(words[1], "").split()] for words in lines]


def expanded(words: list[str]) -> list[str]:
    """The words as a shell hands them over, patterns of paths replaced by what is there."""
    return [path for word in words for path in (sorted(glob.glob(word)) or [word])]


@pytest.mark.slow
def test_the_story_of_ones_own_data_runs_as_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_interactions(tmp_path)
    monkeypatch.setitem(PASSES, "cpu", 48)
    monkeypatch.setitem(ALIGNED, "cpu", 16)
    monkeypatch.chdir(tmp_path)
    for words in story():
        with pytest.raises(SystemExit) as exit_:
            main(expanded(words))
        told = capsys.readouterr()
        assert not exit_.value.code, f"mllmrec {shlex.join(words)}: {told.err}"
    assert (tmp_path / "result/shop/grpo/test_uni9_w10_s42/manifest.json").exists()
