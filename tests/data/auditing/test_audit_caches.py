"""The reference implementation's prompt caches: read in all their forms, and each known defect told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from audit_world import ITEMS, NAME, NUM_USERS, WINDOW, amiss, audit, findings, make_world, planted, sequences, trace

from mllmrec import Workspace
from mllmrec.data.auditing import findings as kinds
from mllmrec.data.auditing.caches import CachedPrompt, gather, read_rows
from mllmrec.data.auditing.material import TraceTexts, load, read_trace_file
from mllmrec.data.candidates.drawing import freeze
from mllmrec.data.sequences import Interactions
from mllmrec.records import RankingExample
from mllmrec.storage.workspace import read_json, write_json

Row = dict[str, Any]
CHOSEN = sequences()
HINT = "Step 1: likes old things.\nStep 2: wants more.\nStep 3: look for metal.\nStep 4: something sturdy."


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The clean world without candidate files of ours."""
    workspace = make_world(tmp_path_factory.mktemp("bare"))
    shutil.rmtree(workspace.dataset(NAME).processed)
    return workspace


@pytest.fixture
def world(bare: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(bare.root, tmp_path / "world")
    return Workspace(tmp_path / "world")


def prompt(example: RankingExample, hint: str = "", first: Sequence[str] = ()) -> str:
    """A prompt in the reference's order: history, candidates, hint, question."""
    shown = [f"[ITEM_{item}] {ITEMS[item]}" for item in (*first, *example.history)]
    listed = [f"[ITEM_{item}] {ITEMS[item]}" for item in example.candidates]
    thought = f"<think>\n{hint}\n</think>\n" if hint else ""
    return "\n".join(["Seen so far", *shown, "Choose from", *listed, f"{thought}What is next?"])


def generated(example: RankingExample, **more: Any) -> Row:
    turns = [{"role": "system", "content": "Recommend."}, {"role": "user", "content": prompt(example, **more)}]
    return {"prompt": turns, "target_id": example.target_id, "candidates": list(example.candidates)}


def messages(example: RankingExample, **more: Any) -> Row:
    answer = f"[ITEM_{example.target_id}] {ITEMS[example.target_id]}"
    turns = [{"role": "user", "content": prompt(example, **more)}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def drawn(workspace: Workspace, split: Any, seed: int = 42) -> list[RankingExample]:
    """Lists as `candidates` draws them, so that nothing is amiss with negatives and order."""
    interactions = Interactions.load(workspace, NAME)
    return freeze(interactions, split, window=WINDOW, num_neg=9, seed=seed)[0]


def cache(workspace: Workspace, name: str, rows: Sequence[Row]) -> Path:
    path = workspace.dataset(NAME).processed / name
    write_json(path, list(rows), indent=None)
    return path


@pytest.mark.parametrize(
    "name", ["test_generate_seed42_neg9_int_4.json", "test_generate_seed42_neg9_cot_0.1_int_4.json"]
)
def test_a_cache_without_defects_passes(world: Workspace, name: str) -> None:
    cache(world, name, [generated(example) for example in drawn(world, "test")])
    cache(world, "train_train_seed42_neg9_int_4.json", [messages(example) for example in drawn(world, "train")])
    summary = audit(world)
    assert amiss(summary) == set()
    looked_at = {
        finding["where"]: finding["total"] for finding in findings(summary) if finding["check"] == kinds.POSITION
    }
    assert looked_at == {name: NUM_USERS, "train_train_seed42_neg9_int_4.json": NUM_USERS}


def test_hints_in_test_prompts(world: Workspace) -> None:
    rows = [generated(example, hint=HINT if at == 5 else "") for at, example in enumerate(drawn(world, "test"))]
    cache(world, "test_generate_seed42_neg9_int_4.json", rows)
    assert planted(world) == {(kinds.LATER_HINTS, "leak")}


def test_hints_in_training_prompts_are_what_they_are_for(world: Workspace) -> None:
    records = read_json(world.dataset(NAME).pseudo_cot)
    rows = [messages(example, hint=records[at]["reasoning"]) for at, example in enumerate(drawn(world, "train"))]
    cache(world, "train_train_seed42_neg9_cot_1.0_int_4.json", rows)
    assert planted(world) == set()


def test_a_hint_of_another_user(world: Workspace) -> None:
    """Looked up by row after the short lines were left out: all are one user off."""
    records = read_json(world.dataset(NAME).pseudo_cot)
    hints = [records[at - 1]["reasoning"] for at in range(NUM_USERS)]
    examples = drawn(world, "train")
    named = [ITEMS[example.target_id] in hint for hint, example in zip(hints, examples, strict=True)]
    hints = ["" if by_chance else hint for hint, by_chance in zip(hints, named, strict=True)]
    rows = [messages(example, hint=hint) for hint, example in zip(hints, examples, strict=True)]
    cache(world, "train_train_seed42_neg9_cot_1.0_int_4.json", rows)
    assert planted(world) == {(kinds.FOREIGN_HINTS, "warning")}
    (finding,) = [each for each in findings(audit(world)) if each["check"] == kinds.FOREIGN_HINTS]
    assert finding["found"] == f"{NUM_USERS - sum(named)} (100.0%), first: row 0, user u0"


@pytest.mark.parametrize("naming", ["[ITEM_{id}] it is.", "Step 5: the {title}."])
def test_a_hint_that_names_the_answer(world: Workspace, naming: str) -> None:
    examples = drawn(world, "train")
    target = examples[3].target_id
    hint = f"{HINT}\n{naming.format(id=target, title=ITEMS[target].rpartition(' (')[0])}"
    rows = [messages(example, hint=hint if at == 3 else "") for at, example in enumerate(examples)]
    cache(world, "train_train_seed42_neg9_cot_0.1_int_4.json", rows)
    assert planted(world) == {(kinds.NAMING_TRACES, "leak")}


@pytest.mark.parametrize("kind", [generated, messages])
def test_the_answer_beside_the_list(world: Workspace, kind: Callable[..., Row]) -> None:
    split = "test" if kind is generated else "train"
    name = "test_generate_seed42_neg9_int_4.json" if kind is generated else "train_train_seed42_neg9_int_4.json"
    rows = [kind(example) for example in drawn(world, split)]
    turns = rows[8]["prompt" if kind is generated else "messages"]
    target = drawn(world, split)[8].target_id
    turns[-1 if kind is generated else 0]["content"] += f" Think of [ITEM_{target}] now."
    cache(world, name, rows)
    assert planted(world) == {(kinds.TARGET_IN_PROMPT, "leak")}


def test_a_target_that_the_history_repeats_is_no_leak_of_the_prompt(world: Workspace) -> None:
    row = CachedPrompt(
        number=0, text="[ITEM_i1] [ITEM_i2] [ITEM_i2] [ITEM_i3]", target_id="i2", candidates=("i2", "i3")
    )
    assert row.lists(("i1", "i2"), 2) == (("i2", "i3"), ["i1", "i2"])


def test_the_same_lists_for_sft_and_grpo_warn(world: Workspace) -> None:
    examples = drawn(world, "train")
    cache(world, "train_train_seed42_neg9_int_4.json", [messages(example) for example in examples])
    cache(world, "train_generate_seed42_neg9_int_4.json", [generated(example) for example in examples])
    assert planted(world) == {(kinds.SHARED_LISTS, "warning")}
    (finding,) = [each for each in findings(audit(world)) if each["verdict"] == "warning"]
    assert finding["found"].startswith(f"{NUM_USERS} (100.0%) users have the same list in the same order")


def test_the_same_places_in_training_and_test_warn(world: Workspace) -> None:
    train, test = drawn(world, "train"), drawn(world, "test")
    for number, (first, second) in enumerate(zip(train, test, strict=True)):
        others = [item for item in second.candidates if item != second.target_id]
        others.insert(first.candidates.index(first.target_id), second.target_id)
        test[number] = RankingExample(**{**vars(second), "candidates": tuple(others)})
    cache(world, "train_train_seed42_neg9_int_4.json", [messages(example) for example in train])
    cache(world, "test_generate_seed42_neg9_int_4.json", [generated(example) for example in test])
    assert planted(world) == {(kinds.SHARED_LISTS, "warning")}


def test_a_consumed_negative_of_the_reference_warns(world: Workspace) -> None:
    rows = [generated(example) for example in drawn(world, "test")]
    at = next(at for at, row in enumerate(rows) if row["candidates"][0] != row["target_id"])
    rows[at]["candidates"][0] = CHOSEN[f"u{at}"][0]
    cache(world, "test_generate_seed42_neg9_int_4.json", rows)
    assert planted(world) == {(kinds.CONSUMED, "warning")}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda rows: rows.insert(0, rows.pop(1)), "row 0, user u0"),
        (lambda rows: rows.append(rows[0]), "row 300 has no line"),
        (lambda rows: rows.pop(), "299 rows for 300 lines"),
    ],
)
def test_a_cache_of_other_data_warns(world: Workspace, change: Callable[[list[Row]], None], found: str) -> None:
    rows = [generated(example) for example in drawn(world, "test")]
    change(rows)
    cache(world, "test_generate_seed42_neg9_int_4.json", rows)
    assert planted(world) == {(kinds.CONTENT, "warning")}
    (finding,) = [each for each in findings(audit(world)) if each["verdict"] == "warning"]
    assert f"first: {found}" in finding["found"]


@pytest.mark.parametrize(
    "row", [{}, {"prompt": 1, "target_id": "i1", "candidates": []}, {"messages": []}, {"messages": 3}]
)
def test_a_row_that_is_no_prompt(world: Workspace, row: Row) -> None:
    rows = [generated(example) for example in drawn(world, "test")]
    rows[2] = row
    cache(world, "test_generate_seed42_neg9_int_4.json", rows)
    assert planted(world) == {(kinds.CONTENT, "wrong")}


def test_an_instruction_on_thinking_is_no_hint(world: Workspace) -> None:
    """What stands in every prompt tells how to answer."""
    how = "put what you think of these items between these tags"
    cache(world, "test_generate_seed42_neg9_int_4.json", [generated(e, hint=how) for e in drawn(world, "test")])
    assert planted(world) == set()


BRIEF = "Step 1: likes it"


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize(
    "block",
    [
        f"<think>\n{BRIEF}\n</think>",
        "<think>kettles</think>",
        f"<thinking>{BRIEF}</thinking>",
        f"<Reasoning>\n{BRIEF}\n</Reasoning>",
        f"[THINK]{BRIEF}[/THINK]",
        f"◁think▷{BRIEF}◁/think▷",
        f"<think>{BRIEF}",
    ],
)
def test_a_think_block_of_any_wording_in_a_later_prompt(world: Workspace, split: str, block: str) -> None:
    rows = [generated(example) for example in drawn(world, split)]
    for row in rows[::10]:
        row["prompt"][-1]["content"] += f"\n{block}"
    cache(world, f"{split}_generate_seed42_neg9_int_4.json", rows)
    assert planted(world) == {(kinds.LATER_HINTS, "leak")}


def test_a_think_block_in_three_of_four_test_prompts_is_no_instruction(world: Workspace) -> None:
    rows = [generated(example, hint=BRIEF if at % 4 else "") for at, example in enumerate(drawn(world, "test"))]
    cache(world, "test_generate_seed42_neg9_int_4.json", rows)
    assert planted(world) == {(kinds.LATER_HINTS, "leak")}


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_a_think_block_in_another_turn_of_a_test_prompt(world: Workspace, role: str) -> None:
    rows = [generated(example) for example in drawn(world, "test")]
    for row in rows[::10]:
        row["prompt"].append({"role": role, "content": f"<think>\n{BRIEF}\n</think>"})
    cache(world, "test_generate_seed42_neg9_int_4.json", rows)
    assert planted(world) == {(kinds.LATER_HINTS, "leak")}


EXAMPLES = [
    ("", "\nAnswer with one line such as `[ITEM_i5] Frozen Kettle (1955)`"),
    ("", "\n[ITEM_12345] A Title"),
    ("Answer as [ITEM_<id>] <title>.\n", ""),
    ("Answer as in\n[ITEM_i5] Frozen Kettle (1955)\n", "\nAnswer as [ITEM_<id>] <title>."),
]


@pytest.mark.parametrize(("before", "behind"), EXAMPLES)
def test_an_example_id_in_the_instruction_is_no_candidate(world: Workspace, before: str, behind: str) -> None:
    """Nor is it the answer beside the list, where it happens to be the answer."""
    for split, name, kind in (
        ("train", "train_train_seed42_neg9_int_4.json", messages),
        ("test", "test_generate_seed42_neg9_int_4.json", generated),
    ):
        examples = drawn(world, split)
        rows = [kind(example) for example in examples]
        for row in rows:
            turn = row["prompt"][1] if "prompt" in row else row["messages"][0]
            turn["content"] = before + turn["content"] + behind
        cache(world, name, rows)
    path = world.dataset(NAME).processed / "train_train_seed42_neg9_int_4.json"
    read = gather(load(world, NAME, WINDOW), path).examples
    assert [example.candidates for example in read] == [example.candidates for example in drawn(world, "train")]
    assert planted(world) == set()


def test_the_answer_behind_an_example_id_is_still_seen(world: Workspace) -> None:
    rows = [messages(example) for example in drawn(world, "train")]
    for row in rows:
        row["messages"][0]["content"] += "\nAnswer with one line such as `[ITEM_i5] Frozen Kettle (1955)`"
    rows[8]["messages"][0]["content"] += f" Think of [ITEM_{drawn(world, 'train')[8].target_id}] now."
    cache(world, "train_train_seed42_neg9_int_4.json", rows)
    assert planted(world) == {(kinds.TARGET_IN_PROMPT, "leak")}


def test_negatives_that_all_prompts_share_are_candidates_though_they_stand_behind_the_same_words() -> None:
    row = CachedPrompt(
        number=0, text="Seen\n[ITEM_1]\nChoose\n[ITEM_2]\n[ITEM_3]\nas [ITEM_9]", target_id="2", candidates=None
    )
    shared = frozenset(row.mentions()[1:])
    assert row.lists(("1",), 2, shared) == (("2", "3"), ["1", "9"])


# ---- how rows are read


def test_prompts_may_be_plain_and_ids_numbers(tmp_path: Path) -> None:
    path = tmp_path / "test_generate_seed1_neg1.json"
    path.write_text(json.dumps([{"prompt": "Choose [ITEM_3] or [ITEM_4]", "target_id": 3, "candidates": [3, 4]}]))
    assert list(read_rows(path)) == [
        CachedPrompt(number=0, text="Choose [ITEM_3] or [ITEM_4]", target_id="3", candidates=("3", "4"))
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is next? <think>\n</think>", ""),
        ("<think>one</think>", "one"),
        ("<think>one two three four five</think>", "one two three four five"),
        ("<think>one two three four five", "one two three four five"),
        ("**Step 1:** a\nStep 2: b", "**Step 1:** a\nStep 2: b"),
        ("Think step by step. Step 1: a", ""),
        ("x\n the user u3 came back\nfrom here and there\nWhat?", " the user u3 came back\nfrom here and there\nWhat?"),
    ],
)
def test_hints_in_their_forms(tmp_path: Path, text: str, expected: str) -> None:
    known = trace("u3", CHOSEN["u3"][:WINDOW], 3, " the user u3 came back\nfrom here and there")
    write_json(tmp_path / "traces.json", [known])
    traces = TraceTexts(read_trace_file(tmp_path / "traces.json").rows)
    assert CachedPrompt(number=0, text=text, target_id="i1", candidates=None).hint(traces) == expected


# ---- the reference's own lists


@pytest.mark.real_data
def test_lists_of_the_reference_pass_with_the_known_warnings(real_data: Path, tmp_path: Path) -> None:
    """Its draw over the real lines: as many rows as were kept, in the form of its caches."""
    golden = real_data.parent / "golden"
    if not golden.is_dir():
        pytest.skip(f"{golden} is not there")
    (tmp_path / "data").mkdir()
    shutil.copytree(real_data / "movielens", tmp_path / "data" / "movielens", ignore=shutil.ignore_patterns("images"))
    folder = tmp_path / "data" / "movielens"
    folder.chmod(0o755)
    for split in ("train", "test"):
        rows = json.loads((golden / f"candidates_{split}_seed42_neg9_int10.json").read_text())["first"]
        path = folder / "processed" / f"{split}_generate_seed42_neg9_int_10.json"
        write_json(path, [{**row, "prompt": "old"} for row in rows])
    from mllmrec.data.auditing.stage import run
    from mllmrec.settings.data import AuditSettings

    summary = run(AuditSettings(dataset="movielens", root=str(tmp_path)), Workspace(tmp_path))
    assert summary.passed
    assert amiss(summary) == {(kinds.CONTENT, "warning"), (kinds.CONSUMED, "warning"), (kinds.SHARED_LISTS, "warning")}
