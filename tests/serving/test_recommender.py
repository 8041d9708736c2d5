"""Using a trained model from Python and on the command line: the figures are those that `evaluate` would give."""

from __future__ import annotations

import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_models import DATASET, WINDOW, naive_scores

from mllmrec import Item, Recommender
from mllmrec.cli.main import main
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.errors import ArtifactError, DataError, SettingsError
from mllmrec.evaluation.baselines.stage import run as run_baselines
from mllmrec.evaluation.blending.stage import run as run_blend
from mllmrec.evaluation.ranking import stage as ranking
from mllmrec.records import RankingExample
from mllmrec.serving.answers import Question
from mllmrec.serving.scoring import ABANDONED, AbandonedError, SharedScoring
from mllmrec.settings.data import CandidatesSettings
from mllmrec.settings.evaluation import BaselinesSettings, BlendSettings, EvaluateSettings
from mllmrec.storage.workspace import Workspace, read_jsonl

LISTS = f"test_uni9_w{WINDOW}_s42"


def test_ranks_are_those_of_evaluate(
    trained_copy: Workspace, recommender: Recommender, examples: list[RankingExample]
) -> None:
    ranking.run(EvaluateSettings(dataset=DATASET, root=str(trained_copy.root), tag="grpo", device="cpu"), trained_copy)
    rows = {
        row["example_id"]: row["scores"]
        for row in read_jsonl(trained_copy.dataset(DATASET).run("grpo", LISTS) / "rankings.jsonl")
    }
    for example in examples[:12]:
        found = recommender.rank(example.history, example.candidates)
        scores = [item.log_probability for item in sorted(found, key=lambda item: item.index)]
        assert scores == pytest.approx(rows[example.example_id], abs=1e-4)
        assert [item.item_id for item in found] == sorted(
            example.candidates, key=lambda item: -scores[example.candidates.index(item)]
        )
        assert sum(item.probability for item in found) == pytest.approx(1)


def test_shares_are_those_of_plain_forward_passes(recommender: Recommender, examples: list[RankingExample]) -> None:
    example, encoder = examples[0], recommender.ranker.encoder
    expected = naive_scores(
        recommender.ranker.engine.model,  # type: ignore[attr-defined]
        encoder.prompt_ids(example),
        encoder.scored_answers(example, "answer"),
    )
    total = sum(map(math.exp, expected))
    for item in recommender.rank(example.history, example.candidates):
        assert item.log_probability == pytest.approx(expected[item.index], abs=1e-3)
        assert item.probability == pytest.approx(math.exp(expected[item.index]) / total, abs=1e-4)
        assert item.title == recommender.names.catalogue.title(example.candidates[item.index])


def test_recommendations_leave_out_the_history(recommender: Recommender, examples: list[RankingExample]) -> None:
    history = examples[0].history
    found = recommender.recommend(history, top_k=5, retrieve=12)
    assert len(found) == 5
    assert not {item.item_id for item in found} & {*history}
    assert [item.probability for item in found] == sorted((item.probability for item in found), reverse=True)
    taken = found[0].item_id
    assert taken not in {item.item_id for item in recommender.recommend(history, retrieve=12, exclude=[taken])}
    assert recommender.retriever.name == "markov"
    everything = recommender.recommend(history, top_k=1000, retrieve=1000)
    assert len(everything) == len(recommender.names.pool) - len({*history})


def test_without_a_history_the_most_popular_items_are_candidates(recommender: Recommender) -> None:
    counts: dict[str, int] = {}
    for line in recommender.interactions.train:
        for item in line.items:
            counts[item] = counts.get(item, 0) + 1
    best = sorted(counts.values(), reverse=True)[:3]
    assert sorted((counts[item.item_id] for item in recommender.recommend([], retrieve=3)), reverse=True) == best


def test_items_may_be_named_by_their_titles(recommender: Recommender, examples: list[RankingExample]) -> None:
    example, title = examples[0], recommender.names.catalogue.title
    by_title = recommender.rank([title(item).upper() for item in example.history], [*map(title, example.candidates)])
    assert by_title == recommender.rank(example.history, example.candidates)


def test_an_unknown_item_is_refused_with_the_nearest_titles(recommender: Recommender) -> None:
    item = recommender.names.pool[0]
    title = recommender.names.catalogue.title(item)
    with pytest.raises(DataError, match=rf"No item has the id or title '{title}x'.*Nearest: .*{title} \({item}\)"):
        recommender.rank([], [f"{title}x"])


@pytest.mark.parametrize(
    ("candidates", "message"), [([], "There are no candidates"), (["FIRST", "FIRST"], "is given twice")]
)
def test_lists_that_make_no_sense_are_refused(recommender: Recommender, candidates: list[str], message: str) -> None:
    first = recommender.names.pool[0]
    with pytest.raises(DataError, match=message):
        recommender.rank([], [first if name == "FIRST" else name for name in candidates])


def test_values_that_would_be_misread_are_refused(recommender: Recommender) -> None:
    first, second = recommender.names.pool[:2]
    for ask in (
        lambda: recommender.rank(first, [second]),
        lambda: recommender.rank([], second),
        lambda: recommender.recommend([first], exclude=second),
    ):
        with pytest.raises(DataError, match="in place of a list of items"):
            ask()
    with pytest.raises(DataError, match=r"101 names no item\. Expected an id or a title as text"):
        recommender.rank([101], [first])  # type: ignore[list-item]
    for ask in (
        lambda: recommender.rank([first], [second], top_k=0),
        lambda: recommender.recommend([first], top_k=-1),
        lambda: recommender.recommend([first], retrieve=-1),
    ):
        with pytest.raises(SettingsError, match="expected 1 or more"):
            ask()


def test_a_history_is_never_cut_for_texts_of_the_callers_own(
    trained: Workspace, recommender: Recommender, examples: list[RankingExample], capsys: pytest.CaptureFixture[str]
) -> None:
    example, long = examples[0], Item(item_id="mine", title="a thing that nobody has met, " * 1000)
    for history, candidates in (((*example.history[1:], long), example.candidates), (example.history, [long])):
        with pytest.raises(DataError, match="doesn't hold the whole history beside such long titles as that of mine"):
            recommender.rank(history, candidates)
    options: dict[str, Any] = {"device": "cpu", "retriever": "markov", "max_prompt_tokens": 64}
    narrow = Recommender.load(trained.root, DATASET, "grpo", **options)
    capsys.readouterr()
    for _ in range(2):
        narrow.rank(example.history, example.candidates[:2])
    assert capsys.readouterr().err.count("their oldest items are left out") == 1


def test_the_window_of_a_trained_model_cannot_be_contradicted(trained: Workspace) -> None:
    with pytest.raises(SettingsError, match=f"window is {WINDOW + 1}, and grpo was trained with {WINDOW}"):
        Recommender.load(trained.root, DATASET, "grpo", device="cpu", min_inter=WINDOW + 1)


def test_raw_ids_name_items_and_users(trained_copy: Workspace, examples: list[RankingExample]) -> None:
    example, files = examples[0], trained_copy.dataset(DATASET)
    item = example.candidates[0]
    files.raw_ids.write_text(f'kind,raw,id\nuser,who/7,{example.user_id}\nitem,"a, b/1",{item}\n')
    renamed = Recommender.load(trained_copy.root, DATASET, "grpo", device="cpu", retriever="markov")
    [found] = renamed.rank(example.history, ["a, b/1"])
    assert (found.item_id, found.raw_id) == (item, "a, b/1")
    assert renamed.history_of("who/7") == renamed.history_of(example.user_id)
    assert renamed.met_by("who/7") == renamed.met_by(example.user_id) != frozenset()


def test_an_item_of_ones_own_is_ranked_beside_the_catalogue(
    recommender: Recommender, examples: list[RankingExample]
) -> None:
    example = examples[0]
    own = Item(item_id="mine", title="A thing that nobody has met")
    found = recommender.rank(example.history, [*example.candidates, own])
    assert {item.item_id for item in found} == {*example.candidates, "mine"}
    assert next(item.title for item in found if item.item_id == "mine") == own.title
    taken = Item(item_id=example.candidates[0], title="Another title")
    with pytest.raises(DataError, match="Give it another id"):
        recommender.rank(example.history, [taken])
    assert "mine" not in recommender.names


def test_reasons_are_what_leaving_out_an_item_does(recommender: Recommender, examples: list[RankingExample]) -> None:
    example = examples[1]
    wanted = example.candidates[3]
    why = recommender.explain(example.history, wanted, example.candidates)

    def odds(history: tuple[str, ...]) -> float:
        share = next(item.probability for item in recommender.rank(history, example.candidates) if item.index == 3)
        return math.log(share / (1 - share))

    assert why.log_odds == pytest.approx(odds(example.history), abs=1e-3)
    assert [reason.item_id for reason in why.reasons] == [*example.history]
    for number, reason in enumerate(why.reasons):
        without = (*example.history[:number], *example.history[number + 1 :])
        assert reason.effect == pytest.approx(odds(example.history) - odds(without), abs=1e-3)
    with pytest.raises(DataError, match="isn't among the candidates"):
        recommender.explain(example.history, wanted, [item for item in example.candidates if item != wanted])
    alone = recommender.explain(example.history, wanted)
    assert alone.candidates[0] == wanted
    assert len(alone.candidates) == 20


def test_a_longer_history_is_read_from_its_end(recommender: Recommender, examples: list[RankingExample]) -> None:
    example = examples[0]
    longer = (example.candidates[0], *example.history)
    found = recommender.rank(longer, example.candidates)
    assert found == recommender.rank(example.history, example.candidates)
    assert (found.history_given, found.history_read) == (len(longer), WINDOW - 1)


def test_what_a_budget_cuts_off_a_history_is_told(trained: Workspace, examples: list[RankingExample]) -> None:
    """A budget that holds two items less: by the prompts themselves, whose lines are counted."""
    whole = Recommender.load(trained.root, DATASET, "grpo", device="cpu", retriever="markov")
    example, encoder = examples[0], whole.ranker.encoder
    shorter = replace(example, history=example.history[2:])
    encoder.renderer.captions = {}
    tokens = len(encoder.prompt_ids(shorter))
    cut = Recommender.load(
        trained.root, DATASET, "grpo", device="cpu", retriever="markov", max_prompt_tokens=tokens, force=True
    )
    found = cut.rank(example.history, example.candidates)
    assert (found.history_given, found.history_read) == (len(example.history), len(example.history) - 2)
    assert found == cut.rank(shorter.history, example.candidates)
    why = cut.explain(example.history, example.candidates[0], example.candidates)
    assert [reason.item_id for reason in why.reasons] == [*shorter.history]
    assert (why.history_given, why.history_read) == (len(example.history), len(shorter.history))


def test_threads_get_the_answers_of_their_own_questions(
    recommender: Recommender, examples: list[RankingExample]
) -> None:
    expected = [recommender.rank(example.history, example.candidates) for example in examples[:16]]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda own: recommender.rank(own.history, own.candidates), examples[:16]))
    for own, other in zip(expected, found, strict=True):
        assert [item.item_id for item in own] == [item.item_id for item in other]
        assert [item.probability for item in own] == pytest.approx([item.probability for item in other], abs=1e-4)


def test_a_user_is_known_by_all_but_the_held_out_item(recommender: Recommender, examples: list[RankingExample]) -> None:
    for example in examples[:5]:
        history = recommender.history_of(example.user_id)
        assert history[-len(example.history) :] == example.history
    with pytest.raises(DataError, match="has no user 'nobody'"):
        recommender.history_of("nobody")


def test_a_blend_ranks_recommendations(trained_copy: Workspace) -> None:
    root = str(trained_copy.root)
    from mllmrec.data.candidates.stage import run as draw

    draw(CandidatesSettings(dataset=DATASET, root=root, split="valid", min_inter=WINDOW), trained_copy)
    for split in ("valid", "test"):
        shared: dict[str, Any] = {"dataset": DATASET, "root": root, "split": split}
        ranking.run(EvaluateSettings(tag="grpo", device="cpu", **shared), trained_copy)
        run_baselines(BaselinesSettings(names=("markov",), min_inter=WINDOW, **shared), trained_copy)
    lists = {split: f"{split}_uni9_w{WINDOW}_s42" for split in ("valid", "test")}
    runs = {
        split: tuple(f"result/{DATASET}/{name}/{stem}" for name in ("grpo", "markov")) for split, stem in lists.items()
    }
    run_blend(BlendSettings(root=root, runs=runs["test"], on=runs["valid"]), trained_copy)
    blended = Recommender.load(trained_copy.root, DATASET, "grpo", device="cpu")
    assert blended.blend is not None
    assert blended.blend.name == "blend-grpo-markov"
    rows = list(read_jsonl(trained_copy.dataset(DATASET).run("blend-grpo-markov", lists["test"]) / "rankings.jsonl"))
    examples = {
        own.example_id: own
        for own in read_candidates(trained_copy.dataset(DATASET).candidates("test", "uni9", WINDOW, 42))
    }
    for row in rows[:5]:
        example = examples[row["example_id"]]
        question = Question(history=example.history, candidates=example.candidates)
        own = blended.blend.log_shares(example, example, blended.score([question])[0].log_probabilities)
        total = math.log(sum(map(math.exp, row["scores"])))
        assert own == pytest.approx([score - total for score in row["scores"]], abs=1e-3)
    history = next(iter(examples.values())).history
    plain = Recommender.load(trained_copy.root, DATASET, "grpo", device="cpu", blend=False)
    assert plain.blend is None
    assert [item.item_id for item in blended.recommend(history)] != [item.item_id for item in plain.recommend(history)]
    longer = (next(item for item in blended.interactions.pool("test") if item not in history), *history)
    best = blended.recommend(longer, retrieve=8)
    candidates = blended.retrieved(longer, 8)
    why = blended.explain(longer, best[0].item_id, candidates, blended=True)
    assert why.blend == "blend-grpo-markov"
    assert why.probability == pytest.approx(best[0].probability, abs=1e-4)
    for row, reason in enumerate(why.reasons):
        without = (*history[:row], *history[row + 1 :])
        scores = blended.score([Question(history=without, candidates=candidates)])[0].log_probabilities
        example = blended.reader.whole(Question(history=without, candidates=candidates))
        share = math.exp(blended.blend.log_shares(example, example, scores)[candidates.index(best[0].item_id)])
        assert reason.effect == pytest.approx(why.log_odds - math.log(share / (1 - share)), abs=1e-3)
    assert blended.explain(longer, best[0].item_id).blend == "blend-grpo-markov"
    assert blended.explain(longer, best[0].item_id, candidates).blend is None
    with pytest.raises(SettingsError, match="no blend of grpo"):
        plain.explain(history, best[0].item_id, blended=True)


def test_a_checkpoint_that_is_not_there_names_those_that_are(trained: Workspace) -> None:
    with pytest.raises(ArtifactError, match=r"full, grpo, sft, sft-merged"):
        Recommender.load(trained.root, DATASET, "gone")
    with pytest.raises(SettingsError, match=r"Recommender.load: .*retriever.*did you mean markov"):
        Recommender.load(trained.root, DATASET, "grpo", retriever="markow")


def run_cli(words: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_the_command_line_is_a_thin_skin(
    trained: Workspace, recommender: Recommender, capsys: pytest.CaptureFixture[str]
) -> None:
    user = recommender.interactions.test[0].user_id
    words = ["recommend", "--root", str(trained.root), "--dataset", DATASET, "--tag", "grpo", "--retriever", "markov"]
    assert run_cli([*words, "--user", user, "--retrieve", "12", "--top-k", "4", "--explain", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    history = recommender.history_of(user)
    expected = recommender.recommend(history, 4, 12, recommender.met_by(user))
    assert [item["item_id"] for item in printed["items"]] == [item.item_id for item in expected]
    assert printed["history"] == [*history]
    assert len(printed["explanations"][0]["reasons"]) == min(len(history), WINDOW - 1)
    ids = ",".join(item.item_id for item in expected)
    assert run_cli([*words, "--history", ",".join(history), "--candidates", ids]) == 0
    assert expected[0].title in capsys.readouterr().out
    only = [*words, "--history", history[0], "--candidates", expected[0].item_id, "--explain", "1", "--json"]
    assert run_cli(only) == 0
    [why] = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["explanations"]
    assert why["log_odds"] is None
    assert why["reasons"][0]["effect"] is None
    titles = f'{history[0]}, "Nothing, or anything"'
    assert run_cli([*words, "--history", titles, "--candidates", ids]) == 2
    assert "No item has the id or title 'Nothing, or anything'" in " ".join(capsys.readouterr().err.split())
    assert run_cli([*words, "--user", user, "--history", history[0]]) == 2
    assert "either --user or --history" in capsys.readouterr().err


def test_those_that_wait_are_scored_together() -> None:
    calls: list[int] = []
    first_is_in, go_on = threading.Event(), threading.Event()

    def score(questions: Any) -> list[int]:
        calls.append(len(questions))
        first_is_in.set()
        assert go_on.wait(30)
        return [question * 2 for question in questions]

    shared = SharedScoring(score, 8)
    with ThreadPoolExecutor(8) as pool:
        early = pool.submit(shared, [1])
        assert first_is_in.wait(30)
        late = [pool.submit(shared, [number, number]) for number in range(2, 7)]
        while shared.waiting < 5:
            threading.Event().wait(0.005)
        go_on.set()
        assert early.result() == [2]
        assert [one.result() for one in late] == [[2 * number] * 2 for number in range(2, 7)]
    assert calls == [1, 8, 2]


def test_an_error_is_that_of_the_question_alone_and_who_left_is_not_answered() -> None:
    first_is_in, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def score(questions: Any) -> list[int]:
        first_is_in.set()
        assert go_on.wait(30)
        seen.extend(questions)
        if 13 in questions:
            raise DataError("unlucky")
        return list(questions)

    shared = SharedScoring(score, 8)
    left = threading.Event()

    def abandon(number: int) -> list[int]:
        ABANDONED.set(left)
        return shared([number])

    with ThreadPoolExecutor(8) as pool:
        pool.submit(shared, [1])
        assert first_is_in.wait(30)
        good, bad, gone = pool.submit(shared, [2]), pool.submit(shared, [13]), pool.submit(abandon, 3)
        while shared.waiting < 3:
            threading.Event().wait(0.005)
        left.set()
        go_on.set()
        assert good.result() == [2]
        with pytest.raises(DataError, match="unlucky"):
            bad.result()
        with pytest.raises(AbandonedError):
            gone.result()
    assert 3 not in seen


def test_a_backbone_is_asked_about_windows_as_the_dataset_was_prepared(trained: Workspace) -> None:
    """`toy` was prepared with windows of five, and the backbone was never trained on windows."""
    assert Recommender.load(trained.root, DATASET, backbone="tiny", device="cpu").window == WINDOW != 10


def test_a_longer_list_gets_as_much_room_for_each_line_as_in_training(
    trained: Workspace, recommender: Recommender, examples: list[RankingExample]
) -> None:
    """`grpo` was trained on lists of five; the format says so, and a merged model hands it on."""
    assert recommender.choice.trained is not None
    assert recommender.choice.trained.candidates == 5
    merged = Recommender.load(trained.root, DATASET, sft_tag="sft-merged", device="cpu")
    assert merged.choice.trained is not None
    assert merged.choice.trained.candidates == 5


def test_a_workspace_that_is_only_read_serves(trained: Workspace, recommender: Recommender) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(trained.root).rglob("*")}
    recommender.recommend(recommender.history_of(recommender.interactions.test[0].user_id), retrieve=5)
    assert {path: path.stat().st_mtime_ns for path in Path(trained.root).rglob("*")} == before
