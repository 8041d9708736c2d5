"""Verification: whole RUNs pass, every kind of tampering is found and named, and scikit-learn gets the same figures."""

from __future__ import annotations

import ast
import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import SCORES, TARGETS, WriteRun, as_baseline, example_of, freeze_lists
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from mllmrec.cli.main import main
from mllmrec.data.candidates.drawing import candidate_rows
from mllmrec.data.draws import uniform
from mllmrec.errors import ArtifactError
from mllmrec.evaluation.blending import stage as blending
from mllmrec.evaluation.metrics import Position, metric, rank_of
from mllmrec.evaluation.ranking import runs as ranking_runs
from mllmrec.evaluation.ranking.cutoffs import normalised
from mllmrec.evaluation.ranking.rankings import ranking_of, ranking_of_answers
from mllmrec.evaluation.ranking.runs import Run, candidate_file, run_folder, write_run
from mllmrec.evaluation.verifying import stage as verification
from mllmrec.evaluation.verifying.metrics import value_of
from mllmrec.evaluation.verifying.rankings import target_of
from mllmrec.records import Ranking, RankingExample, Summary
from mllmrec.settings.evaluation import EvaluateSettings, RunSettings, VerifySettings
from mllmrec.storage.manifests import manifest_path
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl, sha256, write_json, write_jsonl

Edit = Callable[[dict[str, Any]], object]
VARIANCE = sum((value - 0.4375) ** 2 for value in (1.0, 0.5, 0.0, 0.25)) / 3
"""Of HR@1 over the four users, whose mean is 0.4375."""


def verify(*runs: Run, root: Path | str = ".", candidates: str | None = None) -> Summary:
    folders = tuple(str(run.folder) for run in runs)
    settings = VerifySettings(runs=folders, root=str(root), candidates=candidates)
    return verification.run(settings, Workspace(root))


def edit_json(path: Path, edit: Edit) -> None:
    value = read_json(path)
    edit(value)
    write_json(path, value)


def edit_lines(run: Run, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    path = run.folder / "rankings.jsonl"
    rows = list(read_jsonl(path))
    edit(rows)
    write_jsonl(path, rows)


def failed(summary: Summary) -> dict[str, list[str]]:
    """The differences by check, of the checks that found any."""
    assert not summary.passed
    [found] = summary.facts.values()
    assert isinstance(found, dict)
    return {name: differences for name, differences in found.items() if differences}


def test_a_run_as_it_was_written_passes(make_run: WriteRun) -> None:
    summary = verify(make_run(), make_run("flat", dict.fromkeys(SCORES, (0.0,) * 4)))
    assert summary.passed
    assert re.fullmatch(r"2 RUNs verified: \d+ comparisons, no difference\.", summary.headline)
    rows = {row[0]: row[1:] for row in summary.tables[0].rows}
    assert rows["every example once"] == ("4", "0")
    assert rows["metrics"] == ("9", "0")
    # For each K a CSV (header, length, four rows) and a JSON (an object, seven figures); and six files that are there.
    assert rows["reference files"] == (str(3 * (6 + 8) + 6), "0")
    assert summary.tables[0].title == "hand, shop, test_uni3_w3_s42"


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, and every name with the module that it is taken from."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_second_implementation_shares_nothing_with_the_first() -> None:
    first = {
        "mllmrec.evaluation.blending.fitting",
        "mllmrec.evaluation.metrics",
        "mllmrec.evaluation.ranking.rankings",
        "mllmrec.evaluation.comparison.statistics",
    }
    modules = sorted(Path(verification.__file__).parent.glob("*.py"))
    assert {"metrics.py", "rankings.py", "checks.py"} <= {path.name for path in modules}
    for path in modules:
        assert not first & imports_of(path), path
    firsts = imports_of(Path(ranking_runs.__file__)) | imports_of(Path(blending.__file__))
    assert first <= firsts, "the first implementation is called otherwise by now"


FIGURES: list[tuple[Edit, str, str]] = [
    (lambda m: m["metrics"]["HR@1"].update(value=0.4376), "metrics", "HR@1 is told as 0.4376 and comes out as 0.4375"),
    (lambda m: m["metrics"]["MRR"].update(low=0.99), "intervals", r"interval of MRR .* leaves the value out"),
    (lambda m: m["metrics"].pop("NDCG@5"), "metrics", "list of metrics"),
    (lambda m: m["chance"].update({"HR@3": 0.5}), "chance and vacuous metrics", "chance of HR@3 is told as 0.5"),
    (lambda m: m["chance"].pop("HR@3"), "chance and vacuous metrics", "chance of HR@3 is told as None"),
    (lambda m: m.update(vacuous=[]), "chance and vacuous metrics", "vacuous"),
    (lambda m: m.update(num_users=5), "counts and shares", "num_users is told as 5 and comes out as 4"),
    (lambda m: m.update(num_candidates=10), "counts and shares", "num_candidates"),
    (lambda m: m.update(invalid_share=0.25), "counts and shares", "invalid_share is told as 0.25"),
    (lambda m: m.update(candidates_sha256="0" * 64), "candidate file", r"in metrics.json is told as '000"),
]


@pytest.mark.parametrize(
    ("change", "check", "message"), FIGURES, ids=lambda value: value if str(value) == value else ""
)
def test_a_changed_figure_is_found(make_run: WriteRun, change: Edit, check: str, message: str) -> None:
    run = make_run()
    edit_json(run.folder / "metrics.json", change)
    summary = verify(run)
    assert any(re.search(message, difference) for difference in failed(summary)[check])
    assert summary.headline.startswith("1 of 1 RUNs differ")
    assert any(warning.startswith(f"{run.folder}: {check}: ") for warning in summary.warnings)


LINES: list[tuple[Callable[[list[dict[str, Any]]], object], str, str]] = [
    (lambda rows: rows.pop(), "every example once", "example example4 of user 4 is missing"),
    (lambda rows: rows.append(rows[0]), "every example once", "line 5: example example1 was there before"),
    (lambda rows: rows[3].update(example_id="other"), "every example once", "other of user 4 is not in the candidate"),
    (lambda rows: rows[1].pop("ties"), "every example once", "line 2 lacks ties"),
    (lambda rows: rows[1].update(scores=3), "every example once", "line 2 holds no lists"),
    (lambda rows: rows[0].update(user_id="9"), "same lists as the candidate file", "user_id of example example1"),
    (lambda rows: rows[0].update(target_id="b"), "same lists as the candidate file", "target_id of example example1"),
    (lambda rows: rows[0]["candidates"].reverse(), "same lists as the candidate file", "order of candidates"),
    (lambda rows: rows[0].update(candidates=list("abce")), "same lists as the candidate file", "the candidates of"),
    (lambda rows: rows[2]["scores"].__setitem__(1, float("nan")), "one finite score a candidate", "candidate 2 of 4"),
    (lambda rows: rows[2]["scores"].__setitem__(3, float("inf")), "one finite score a candidate", "candidate 4 of 4"),
    (lambda rows: rows[2]["scores"].__setitem__(0, None), "one finite score a candidate", "candidate 1 of 4"),
    (lambda rows: rows[2]["scores"].pop(), "one finite score a candidate", "4 candidates and 3 scores"),
    (lambda rows: rows[0].update(candidates=list("abca")), "one finite score a candidate", "listed twice"),
    (lambda rows: rows[0].update(higher=1), "higher, ties and rank", r"told as \(1, 0, 1.0\) and comes .* \(0, 0, 1.0"),
    (lambda rows: rows[1].update(ties=0), "higher, ties and rank", r"line 2.*\(0, 0, 1.5\) and .* \(0, 1, 1.5\)"),
    (lambda rows: rows[1].update(rank=1.0), "higher, ties and rank", "line 2"),
    (lambda rows: rows[2]["scores"].__setitem__(3, 2.0), "metrics", "HR@1 is told as 0.4375 and comes out as 0.6875"),
    (lambda rows: rows.reverse(), "reference files", r"row 1 of hand_shop_top10\.csv|row 1 of hand_shop_top3\.csv"),
]


@pytest.mark.parametrize(("change", "check", "message"), LINES, ids=lambda value: value if str(value) == value else "")
def test_a_changed_ranking_is_found(
    make_run: WriteRun, change: Callable[[list[dict[str, Any]]], object], check: str, message: str
) -> None:
    run = make_run()
    edit_lines(run, change)
    assert any(re.search(message, difference) for difference in failed(verify(run))[check])


def test_a_line_that_is_no_json_is_found(make_run: WriteRun) -> None:
    run = make_run()
    with (run.folder / "rankings.jsonl").open("a") as file:
        file.write('{"example_id": \n')
    assert failed(verify(run))["every example once"][0].startswith("line 5 is no JSON")


def test_another_candidate_file_is_found(make_run: WriteRun, shop: Workspace) -> None:
    run = make_run()
    path = shop.dataset("shop").candidates("test", "uni3", 3, 42)
    write_jsonl(path, candidate_rows([*(example_of(u, t) for u, t in TARGETS.items()), example_of("5", "a")]))
    found = failed(verify(run))
    assert len(found["candidate file"]) == 2
    assert found["every example once"] == ["example example5 of user 5 is missing"]


def test_lists_that_nothing_vouches_for_are_verified_under_their_foreign_name(
    shop: Workspace, make_run: WriteRun
) -> None:
    manifest_path(shop.dataset("shop").candidates("test", "uni3", 3, 42)).unlink()
    run = make_run()
    assert verify(run).passed
    edit_json(run.folder / "metrics.json", lambda facts: facts.update(protocol="uni3"))
    assert "protocol is told as 'uni3'" in failed(verify(run))["candidate file"][0]


def test_changed_and_missing_and_foreign_reference_files_are_found(make_run: WriteRun) -> None:
    run = make_run()
    table = run.folder / "hand_shop_top3.csv"
    table.write_text(table.read_text(encoding="utf-8-sig").replace("1,a,", "1,b,", 1))
    edit_json(run.folder / "hand_shop_top3.json", lambda told: told.update({"HR@K": 0.7, "total_test": 5}))
    (run.folder / "hand_shop_top5.csv").unlink()
    (run.folder / "hand_shop_top7.json").write_text("{}")
    (run.folder / "hand_shop_top10.json").write_text("no JSON")
    found = failed(verify(run))["reference files"]
    for message in (
        "hand_shop_top5.csv is missing",
        "hand_shop_top7.json belongs to no K of the RUN",
        "row 1 of hand_shop_top3.csv is told as ['1', 'b', \"['a', 'b', 'c']\", '1', '1'] and comes out as ['1', 'a'",
        "total_test of hand_shop_top3.json is told as 5 and comes out as 4",
        "HR@K of hand_shop_top3.json is told as 0.7 and comes out as 0.6875",
        "hand_shop_top10.json is no JSON",
    ):
        assert any(difference.startswith(message) for difference in found), message


def test_the_manifest_is_checked_too(make_run: WriteRun) -> None:
    run = make_run()
    edit_json(run.folder / "manifest.json", lambda m: (m["counts"].update(users=3), m["inputs"].update(candidates="x")))
    found = failed(verify(run))
    assert found["counts and shares"] == [
        "counts in manifest.json is told as {'users': 3, 'unranked': 0} and comes out as {'users': 4, 'unranked': 0}"
    ]
    assert "in manifest.json is told as 'x'" in found["candidate file"][0]


def test_many_differences_are_told_in_short(make_run: WriteRun) -> None:
    run = make_run()
    edit_lines(run, lambda rows: [row.update(user_id="x") for row in rows])
    _, note = verify(run).warnings
    assert note.count("the user_id of example") == 3
    assert note.endswith("; and 1 more.")


def test_an_interval_too_narrow_for_its_users_is_found(shop: Workspace, shop_settings: RunSettings) -> None:
    rng = np.random.default_rng(1)
    examples = [example_of(str(user), "abcd"[user % 4]) for user in range(200)]
    freeze_lists(shop, examples)
    run = written(shop, shop_settings, [ranking_of(each, rng.random(4).tolist()) for each in examples])
    assert verify(run).passed
    edit_json(run.folder / "metrics.json", lambda m: m["metrics"]["HR@1"].update(low=m["metrics"]["HR@1"]["value"]))
    assert "the interval of HR@1" in failed(verify(run))["intervals"][0]


def written(
    shop: Workspace, settings: RunSettings, rankings: list[Ranking], *, method: Any = "score", **facts: Any
) -> Run:
    candidates = candidate_file(settings, shop)
    shared = {name: getattr(settings, name) for name in RunSettings.model_fields}
    made_by = EvaluateSettings(**shared, method=method) if method == "generate" else as_baseline(settings)
    return write_run(
        run_folder(settings, shop, "made", candidates, method),
        rankings,
        made_by,
        name="made",
        candidates=candidates,
        inputs={"candidates": sha256(candidates)},
        started=time.monotonic(),
        seconds=1.0,
        method=method,
        **facts,
    )


def test_generated_answers_pass_and_silence_is_recounted(shop: Workspace, shop_settings: RunSettings) -> None:
    answers = {"1": ["c", "a"], "2": [], "3": ["a", "b"], "4": ["c"]}
    rankings = [ranking_of_answers(example_of(user, TARGETS[user]), words) for user, words in answers.items()]
    run = written(shop, shop_settings, rankings, method="generate", invalid_share=0.25)
    assert verify(run).passed
    edit_json(run.folder / "metrics.json", lambda m: m.update(method="score"))
    assert "higher, ties and rank" in failed(verify(run))


def test_targets_that_a_retriever_missed_pass(shop: Workspace, shop_settings: RunSettings) -> None:
    examples = [example_of("1", "a"), example_of("2", "z"), example_of("3", "b"), example_of("4", "y")]
    freeze_lists(shop, examples)
    run = written(shop, shop_settings, [ranking_of(each, SCORES[each.user_id]) for each in examples])
    assert run.facts["chance"]["HR@1"] == 0.125
    assert verify(run).passed


def test_a_limited_run_needs_the_users_of_its_slice_alone(make_run: WriteRun, shop_settings: RunSettings) -> None:
    limited = shop_settings.model_copy(update={"limit": 2})
    first, second, third, _ = sorted(SCORES, key=lambda user: uniform(42, "slice/test", user))
    assert verify(make_run(scores={user: SCORES[user] for user in (first, second)}, settings=limited)).passed
    others = make_run(scores={user: SCORES[user] for user in (second, third)}, settings=limited)
    found = failed(verify(others))["every example once"]
    assert found == [
        f"line 2: example example{third} of user {third} is not in the candidate file",
        f"example example{first} of user {first} is missing",
    ]


def test_what_a_slice_was_drawn_from_and_what_it_can_show_are_checked(
    make_run: WriteRun, shop_settings: RunSettings
) -> None:
    run = make_run()
    alike = make_run("flat", dict.fromkeys(SCORES, (0.0,) * 4))
    assert set(alike.facts["minimum_detectable"].values()) == {None}
    assert verify(alike).passed
    assert run.facts["minimum_detectable"]["HR@1"] == pytest.approx(2.801585 * (2 * VARIANCE / 4) ** 0.5, abs=1e-6)
    edit_json(run.folder / "metrics.json", lambda m: m["minimum_detectable"].update(MRR=0.5))
    edit_json(run.folder / "metrics.json", lambda m: m.update(slice={"of": 9, "by": "hash"}, num_listed=3))
    found = failed(verify(run))
    assert found["minimum detectable differences"][0].startswith("the minimum detectable difference of MRR is told as")
    assert found["counts and shares"] == [
        "num_listed is told as 3 and comes out as 4",
        "slice is told as {'of': 9, 'by': 'hash'} and comes out as None",
    ]


def test_length_normalised_metrics_follow_from_their_places(shop: Workspace, shop_settings: RunSettings) -> None:
    positions = [Position(0, 1, 4), Position(2, 0, 4), Position(0, 1, 4), Position(3, 0, 4)]
    rankings = [ranking_of(example_of(user, TARGETS[user]), scores) for user, scores in SCORES.items()]
    run = written(shop, shop_settings, rankings, details=normalised(positions, shop_settings.top_k))
    assert verify(run).passed
    edit_json(run.folder / "metrics.json", lambda m: m["length_normalised"].update({"HR@3": 0.5}))
    assert failed(verify(run))["length-normalised metrics"][0].startswith("HR@3 is told as 0.5 and comes out as 0.75")


def test_the_candidate_file_is_found_or_asked_for(make_run: WriteRun, shop: Workspace) -> None:
    run = make_run()
    path = shop.dataset("shop").candidates("test", "uni3", 3, 42)
    moved = path.rename(shop.root / "elsewhere.jsonl")
    with pytest.raises(ArtifactError, match=r"ranked test_uni3_w3_s42, which is no longer there.* --candidates"):
        verify(run)
    assert verify(run, candidates=str(moved)).passed
    assert verify(run, root=shop.root, candidates="elsewhere.jsonl").passed


def test_a_metrics_file_of_another_shape_is_a_finding(make_run: WriteRun) -> None:
    run = make_run()
    edit_json(
        run.folder / "metrics.json", lambda m: (m.pop("chance"), m["metrics"].update(MRR=0.3), m.update(top_k=[]))
    )
    [difference] = failed(verify(run))["the shape of metrics.json"]
    for word in ("chance is required", "metrics.MRR", "top_k"):
        assert word in difference


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"metrics": NaN}'])
def test_a_metrics_file_that_is_no_object_is_a_finding(make_run: WriteRun, text: str) -> None:
    run = make_run()
    (run.folder / "metrics.json").write_text(text)
    assert len(failed(verify(run))["the shape of metrics.json"]) == 1


def test_the_command_exits_with_1_on_a_difference(
    make_run: WriteRun, shop: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    words = ["verify", "result/shop/hand/test_uni3_w3_s42", "--root", str(shop.root)]
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 0
    assert "1 RUN verified:" in capsys.readouterr().out
    edit_json(run.folder / "metrics.json", lambda m: m["metrics"]["HR@1"].update(value=0.9))
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 1
    told = capsys.readouterr()
    assert "HR@1 is told as 0.9 and comes out as 0.4375" in told.err
    assert "1 of 1 RUNs differ" in told.out


def tied_rankings(seed: int, num_candidates: int, values: int, count: int) -> list[tuple[list[float], int]]:
    """Random (scores, target index); few different `values` make many ties."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, (count, num_candidates)).astype(float).tolist()
    return list(zip(scores, rng.integers(0, num_candidates, count).tolist(), strict=True))


def both(scores: list[float], target: int, name: str) -> tuple[float, float]:
    """A metric by the first and by the second implementation."""
    items = [str(index) for index in range(len(scores))]
    row = {"target_id": str(target), "candidates": items, "scores": scores}
    higher, ties = rank_of(scores, target)
    return metric(name)(higher, ties, len(scores)), value_of(name, target_of(row, False, 1).positions)


@pytest.mark.parametrize("values", [2, 5, 1000])
def test_scikit_learn_gets_the_same_ndcg_with_ties(values: int) -> None:
    for scores, target in tied_rankings(values, 12, values, 40):
        truth = np.eye(12)[[target]]
        for k in (1, 3, 10, 12):
            expected = ndcg_score(truth, [scores], k=k)
            assert both(scores, target, f"NDCG@{k}") == pytest.approx((expected, expected), abs=1e-12)


def test_scikit_learn_gets_the_same_reciprocal_rank_without_ties() -> None:
    for scores, target in tied_rankings(7, 9, 10**9, 40):
        expected = label_ranking_average_precision_score(np.eye(9)[[target]], [scores])
        assert both(scores, target, "MRR") == pytest.approx((expected, expected), abs=1e-12)


def test_all_orders_of_tied_candidates_average_to_the_same_figures() -> None:
    for scores, target in tied_rankings(11, 5, 3, 25):
        orders = [
            order
            for order in itertools.permutations(range(5))
            if all(scores[one] >= scores[two] for one, two in itertools.pairwise(order))
        ]
        places = [order.index(target) + 1 for order in orders]
        for k in (1, 2, 4):
            expected = sum(p <= k for p in places) / len(places)
            assert both(scores, target, f"HR@{k}") == pytest.approx((expected, expected), abs=1e-12)
        expected = sum(1 / p for p in places) / len(places)
        assert both(scores, target, "MRR") == pytest.approx((expected, expected), abs=1e-12)


def test_examples_come_from_the_file_alone(make_run: WriteRun, shop: Workspace) -> None:
    """A RUN of the same users on lists of another order doesn't pass for one of the frozen file."""
    run = make_run()
    path = shop.dataset("shop").candidates("test", "uni3", 3, 42)
    swapped: list[RankingExample] = [example_of(user, target, "badc") for user, target in TARGETS.items()]
    write_jsonl(path, candidate_rows(swapped))
    assert len(failed(verify(run))["same lists as the candidate file"]) == 4
