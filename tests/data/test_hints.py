"""Hints: an exact share drawn by hash, kept traces only, and what isn't used is told."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import key, own, reference
from workspaces import write_dataset

from mllmrec import ArtifactError, DataError, Workspace
from mllmrec.data.candidates.drawing import questions
from mllmrec.data.hints import HintDraw, Hints, draw_hints, find_usable, read_hints
from mllmrec.data.sequences import Interactions
from mllmrec.records import RankingExample
from mllmrec.settings.texts import AssessSettings
from mllmrec.storage.json_streams import write_list
from mllmrec.storage.manifests import hash_files, write_manifest
from mllmrec.storage.workspace import DatasetFiles, write_json

TRAIN = "1\tx a b c\n\n2\ta b c\n1\td e f\n"
TITLES = "item,title\nc,The Copper Kettle (1995)\n" + "".join(f"{item},Thing {item}\n" for item in "abdefx")
ALL = HintDraw(share=1.0, seed=42)


def examples(count: int) -> list[RankingExample]:
    return [
        RankingExample(
            example_id=f"e{number}", user_id="u", history=("a",), candidates=("b",), target_id="b", split="train"
        )
        for number in range(count)
    ]


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    return write_dataset(tmp_path, train=TRAIN, titles=TITLES)


def hints_of(shop: Workspace, records: list[Any], draw: HintDraw = ALL, mode: Any = "all") -> dict[str, str]:
    """The hints of all windows of three items, from the refined file."""
    write_json(shop.dataset("shop").refined_cot, records)
    return dict(read(shop, draw, mode).texts)


def read(shop: Workspace, draw: HintDraw = ALL, mode: Any = "all") -> Hints:
    interactions = Interactions.load(shop, "shop")
    return read_hints(
        DatasetFiles(shop, "shop"), interactions, questions(interactions.train, "train", 3, mode)[0], draw
    )


def assess(shop: Workspace, source: Path, records: list[Any]) -> None:
    """Write assessed traces as made from `source` as it is."""
    write_json(shop.dataset("shop").assessed_cot, records)
    write_manifest(
        shop.dataset("shop").assessed_cot, AssessSettings(dataset="shop"), hash_files(traces=source), started=0.0
    )


# ---- the share


@pytest.mark.parametrize(("count", "share", "expected"), [(1000, 0.1, 100), (7, 0.1, 1), (4, 0.1, 0), (10, 1.0, 10)])
def test_the_share_is_one_of_all_examples_and_exact(count: int, share: float, expected: int) -> None:
    usable = {f"e{number}" for number in range(count)}
    assert len(draw_hints(examples(count), usable, HintDraw(share=share, seed=42))) == expected


def test_examples_without_a_trace_count_for_the_share_and_get_no_hint() -> None:
    usable = {f"e{number}" for number in range(0, 100, 4)}
    hints = draw_hints(examples(100), usable, HintDraw(share=0.2, seed=42))
    assert len(hints) == 20
    assert hints <= usable


def test_a_shortfall_gives_every_hint_there_is() -> None:
    usable = {"e1", "e2", "of another dataset"}
    assert draw_hints(examples(100), usable, HintDraw(share=0.1, seed=42)) == {"e1", "e2"}


@given(st.permutations(range(30)), st.integers(0, 29))
@settings(deadline=None)
def test_the_choice_hangs_on_the_hash_of_each_example_alone(order: list[int], wanted: int) -> None:
    rows, usable = examples(30), {f"e{number}" for number in range(30)}
    chosen = draw_hints(rows, usable, HintDraw(share=wanted / 30, seed=42))
    assert draw_hints([rows[at] for at in order], usable, HintDraw(share=wanted / 30, seed=42)) == chosen
    assert chosen < draw_hints(rows, usable, HintDraw(share=(wanted + 1) / 30, seed=42))


def test_another_seed_chooses_others() -> None:
    usable = {f"e{number}" for number in range(100)}
    one, two = (draw_hints(examples(100), usable, HintDraw(share=0.2, seed=seed)) for seed in (1, 2))
    assert one != two


# ---- which traces


def test_records_of_both_kinds_become_hints(shop: Workspace) -> None:
    records = [reference(0, "1", "a b c", " for 1 "), own("1", "d e f", reasoning="later")]
    assert hints_of(shop, records) == {key("1", "a b c"): "for 1", key("1", "d e f"): "later"}


def test_empty_rejected_and_repeated_traces_are_left_out(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        reference(0, "1", "a b c", "", error="timeout"),
        reference(2, "2", "a b c", "bad", keep=False),
        reference(0, "1", "x a b", "good", keep=True),
        reference(0, "1", "x a b", "second thought"),
        reference(1, "1", "x a b", "of a line that isn't there"),
    ]
    assert hints_of(shop, records) == {key("1", "x a b"): "good"}
    told = capsys.readouterr().err
    assert "1 trace belongs to no window of the train split and is left out" in told
    assert "hints for 1 of the 4 examples asked for" in told
    assert "1 were rejected by `mllmrec assess`; 1 hold no words" in told


@pytest.mark.parametrize(
    ("reasoning", "leaks"),
    [
        ("Step 3: something like [ITEM_c].", True),
        ("Step 3: the copper kettle comes to mind.", True),
        ("Step 3: The Copper Kettle (1995).", True),
        ("Step 3: the Copper Kettle's warmth.", True),
        ("Step 3: the Copper-Kettle mood.", True),
        ("Step 3: movie c, or one like it.", True),
        ("Step 3: Candidate c.", True),
        ("Step 3: copper kettles in general.", False),
        ("- **Copper** pots, kettles in general.", False),
        ("Step 3: [ITEM_cc], or [ITEM_a] again, like Thing a.", False),
    ],
)
def test_a_trace_that_names_its_own_target_is_left_out(
    shop: Workspace, capsys: pytest.CaptureFixture[str], reasoning: str, leaks: bool
) -> None:
    hints = hints_of(shop, [own("2", "a b c", reasoning=reasoning)], HintDraw(share=0.25, seed=1))
    assert hints == ({} if leaks else {key("2", "a b c"): reasoning})
    assert ("1 trace names its own target" in capsys.readouterr().err) == leaks


def test_a_window_that_is_not_trained_on_is_no_error(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """An earlier window with --windows last, another length, another user than the fold's: unused, and that is all."""
    records = [own("1", "x a b", reasoning="early"), own("1", "x a b c"), own("2", "b c"), own("2", "a b c")]
    assert hints_of(shop, records, mode="last") == {key("2", "a b c"): "Step 1."}
    assert "3 are of windows that this run doesn't train on" in capsys.readouterr().err


def test_a_stale_trace_of_ours_is_an_error_even_where_it_is_not_asked_for(shop: Workspace) -> None:
    with pytest.raises(DataError, match="1 of its traces can't be joined"):
        hints_of(shop, [own("2", "a b c"), own("2", "b a c")], HintDraw(share=0.0, seed=42))


def test_the_kept_traces_of_an_assessed_file_come_first(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    drafts = [own("1", "a b c", reasoning="draft"), own("2", "a b c", reasoning="draft")]
    assert set(hints_of(shop, drafts).values()) == {"draft"}
    assert "isn't assessed" in capsys.readouterr().err
    assessed = [own("1", "a b c", reasoning="good", keep=True), own("2", "a b c", reasoning="bad", keep=False)]
    write_json(shop.dataset("shop").assessed_cot, assessed)
    assert hints_of(shop, drafts) == {key("1", "a b c"): "good"}
    assert "isn't assessed" not in capsys.readouterr().err


def test_an_assessed_file_of_other_traces_is_refused(shop: Workspace) -> None:
    refined = shop.dataset("shop").refined_cot
    write_json(refined, [own("1", "a b c", reasoning="draft")])
    assess(shop, refined, [own("1", "a b c", reasoning="draft", keep=True)])
    assert read(shop).texts == {key("1", "a b c"): "draft"}
    write_json(refined, [own("1", "a b c", reasoning="new words")])
    with pytest.raises(ArtifactError, match=r"(?s)deepseek_cot\.json.*assess --dataset shop --overwrite"):
        read(shop)
    assert read(shop, HintDraw(share=1.0, seed=42, before_assessment=True)).texts == {key("1", "a b c"): "new words"}
    refined.unlink()
    assert read(shop).texts == {key("1", "a b c"): "draft"}, "what isn't there can't be compared"


def test_assessed_drafts_are_refused_once_there_are_refined_traces(shop: Workspace) -> None:
    drafts = shop.dataset("shop").pseudo_cot
    write_json(drafts, [own("1", "a b c", reasoning="draft")])
    assess(shop, drafts, [own("1", "a b c", reasoning="draft", keep=True)])
    assert len(read(shop).texts) == 1
    write_json(shop.dataset("shop").refined_cot, [own("1", "a b c", reasoning="refined")])
    with pytest.raises(ArtifactError, match="--overwrite"):
        read(shop)


def test_an_assessed_file_without_its_manifest_is_told(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(shop.dataset("shop").assessed_cot, [own("1", "a b c", keep=True)])
    assert len(read(shop).texts) == 1
    assert "nothing tells of which traces it was made" in capsys.readouterr().err


def test_hints_written_with_the_answer_in_view_are_counted(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    told = [own("1", "a b c", answer_conditioned=True), own("2", "a b c", answer_conditioned=False)]
    write_json(shop.dataset("shop").refined_cot, told)
    assert read(shop).answer_conditioned == 1
    assert "1 of the 2 hints were written with the target in view" in capsys.readouterr().err
    write_json(shop.dataset("shop").refined_cot, told[1:])
    assert read(shop).answer_conditioned == 0
    assert "in view" not in capsys.readouterr().err
    write_json(shop.dataset("shop").refined_cot, [reference(2, "2", "a b c"), reference(0, "1", "a b c")])
    assert read(shop).answer_conditioned == 2, "the refiner of the reference implementation is always shown the target"
    shop.dataset("shop").refined_cot.rename(shop.dataset("shop").pseudo_cot)
    assert read(shop).answer_conditioned == 0


def test_without_a_file_the_command_is_named(shop: Workspace) -> None:
    with pytest.raises(ArtifactError, match=r"pseudo-cot\.json does not exist\. Write one with `mllmrec pseudo-cot"):
        read_hints(DatasetFiles(shop, "shop"), Interactions.load(shop, "shop"), examples(3), ALL)


def test_words_that_are_not_drawn_are_not_held(tmp_path: Path) -> None:
    """Two thousand traces of 20,000 characters are 40 MB; a hundredth of them is drawn."""
    count, text = 2000, "x" * 20_000
    shop = write_dataset(tmp_path, train="".join(f"{user}\ta b c\n" for user in range(count)))
    write_list(shop.dataset("shop").refined_cot, (own(str(user), "a b c", reasoning=text) for user in range(count)))
    interactions = Interactions.load(shop, "shop")
    asked = questions(interactions.train, "train", 3)[0]
    tracemalloc.start()
    hints = read_hints(DatasetFiles(shop, "shop"), interactions, asked, HintDraw(share=0.01, seed=42))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(hints.texts) == 20
    assert peak < 8e6
    assert len(find_usable(shop.dataset("shop").refined_cot, interactions, {asked[0].example_id})[0]) == 1
