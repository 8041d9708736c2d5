"""`mllmrec probe`: what it writes, what it asks again and what it doesn't, and that scores are the model's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import PlantedScorer, Seen, condition_scorer
from small_models import DATASET, WINDOW, naive_scores
from traces import own

from mllmrec.data.candidates.drawing import questions, read_candidates
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError, SettingsError
from mllmrec.evaluation.probing import stage
from mllmrec.evaluation.probing.stage import ConditionScorer
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import load
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.base import validated
from mllmrec.settings.evaluation import PROBES, ProbeSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl, write_json

STEM = "test_uni9_w5_s42"


def by_title(seen: Seen) -> list[float]:
    """The theme of the last item first, then what has the shorter title."""
    last = seen.history[-1].title.split()[0] if seen.history else ""
    return [10.0 * (line.title.split()[0] == last) - len(line.title) for line in seen.candidates]


class Bench:
    """A workspace whose model is planted; `asked` counts the lists that were scored since it was last looked at."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.opened: list[ConditionScorer] = []
        self.breaks_after: int | None = None

    def open(self, *_: Any) -> ConditionScorer:
        catalogue = Interactions.load(self.workspace, DATASET).catalogue
        opened_scorer = condition_scorer(
            self.judge, dict.fromkeys([*catalogue.ids][:20], "red") | {catalogue.ids[-1]: "b"}, catalogue
        )
        self.opened.append(opened_scorer)
        return opened_scorer

    def judge(self, seen: Seen) -> list[float]:
        if self.breaks_after is not None:
            self.breaks_after -= 1
            if self.breaks_after < 0:
                raise OSError("the disk is full")
        return by_title(seen)

    def probe(self, **knobs: Any) -> Summary:
        settings = {"backbone": "tiny", "min_inter": WINDOW, "limit": 70} | knobs
        return stage.run(ProbeSettings(dataset=DATASET, root=str(self.workspace.root), **settings), self.workspace)

    @property
    def asked(self) -> int:
        scorers = [opened_scorer.scorer for opened_scorer in self.opened]
        self.opened = []
        return sum(scorer.asked for scorer in scorers if isinstance(scorer, PlantedScorer))

    @property
    def artifact(self) -> Path:
        return self.workspace.dataset(DATASET).run("tiny", STEM) / "probes.json"

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.artifact)
        return found


@pytest.fixture
def bench(toy_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(toy_copy)
    monkeypatch.setattr(stage, "open_scorer", made.open)
    return made


def timeless(facts: Any) -> Any:
    """Facts without seconds."""
    if isinstance(facts, dict):
        return {name: timeless(value) for name, value in facts.items() if "seconds" not in name}
    return facts


def test_scores_are_those_of_one_forward_pass_for_each_answer(toy_copy: Workspace) -> None:
    """The real model under changed prompts, against plain forward passes over prompts that are made here."""
    knobs = {"backbone": "tiny", "min_inter": WINDOW, "device": "cpu", "limit": 2, "rotations": 2}
    settings = ProbeSettings(
        dataset=DATASET, root=str(toy_copy.root), probes=("position", "no-history", "title-mask"), **knobs
    )
    stage.run(settings, toy_copy)
    loaded = load(toy_copy, "tiny", device="cpu")
    encoder = Encoder.make(loaded.chat, Interactions.load(toy_copy, DATASET).catalogue, {}, 4096)
    path = toy_copy.dataset(DATASET).candidates("test", "uni9", WINDOW, 42)
    examples = {example.example_id: example for example in read_candidates(path)}
    scores_path = toy_copy.dataset(DATASET).run("tiny", STEM) / "probes.scores.jsonl"
    rows = {row["key"].split(":")[0]: row for row in read_jsonl(scores_path)}
    assert rows.keys() == {"plain", "rotated-1/2", "no-history", "title-mask"}

    def naive(example: RankingExample) -> list[float]:
        task = encoder.scoring_task(example)
        return naive_scores(loaded.model, task.prompt_T, task.answers_C)

    for place, key in enumerate(rows["plain"]["examples"]):
        example = examples[key]
        turned = replace(example, candidates=example.candidates[5:] + example.candidates[:5])
        expected = {
            "plain": naive(example),
            "rotated-1/2": [*naive(turned)[5:], *naive(turned)[:5]],
            "no-history": naive(replace(example, history=())),
        }
        for name, scores in expected.items():
            assert rows[name]["scores"][place] == pytest.approx(scores, abs=1e-4)
        assert rows["title-mask"]["scores"][place] != pytest.approx(rows["plain"]["scores"][place], abs=0.1)


def test_probes_are_told_with_their_cost_and_what_they_say(bench: Bench) -> None:
    summary = bench.probe()
    facts = bench.facts
    missing = ["caption-swap", "hint"]
    assert list(facts["probes"]) == [*(name for name in PROBES if name not in missing), *missing]
    assert all("not_applicable" in facts["probes"][name] for name in missing)
    assert facts["num_users"] == 70
    assert facts["num_lists"] == 160
    assert facts["cost"]["scorings"] == bench.asked == 14 * 70
    assert facts["cost"]["evaluations"] == 14
    assert facts["cost"]["evaluations_of_the_whole_file"] == pytest.approx(14 * 70 / 160)
    assert facts["probes"]["position"]["evaluations"] == 9
    assert facts["probes"]["popularity"]["evaluations"] == facts["probes"]["length"]["evaluations"] == 0
    assert facts["probes"]["position"]["range"]["value"] == 0.0
    assert facts["probes"]["no-history"]["metrics"]["HR@5"]["difference"]["high"] < 0
    manifest = Manifest.read(bench.artifact)
    assert manifest is not None
    assert (manifest.verb, manifest.counts["users"]) == ("probe", 70)
    assert set(manifest.inputs) >= {"candidates", "titles", "train", "template", "model"}
    overview = summary.tables[-1]
    assert [row[0] for row in overview.rows] == ["plain prompts", *facts["probes"]]
    assert all(len(row[-1].splitlines()) == 1 for row in overview.rows)
    assert "980 lists scored, as many as 14 evaluations of these users or 6.125 of the whole" in overview.note


def test_a_finished_probe_is_left_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.probe(probes="shuffled")
    before = {path: path.stat().st_mtime_ns for path in bench.artifact.parent.iterdir()}
    monkeypatch.setattr(stage, "open_scorer", None)
    summary = bench.probe(probes="shuffled", batch_tokens=512)
    assert "is finished; nothing to do" in summary.headline
    assert summary.tables
    assert {path: path.stat().st_mtime_ns for path in bench.artifact.parent.iterdir()} == before
    with pytest.raises(ArtifactError, match=r"setting max_prompt_tokens was 4096 and is now 2048"):
        bench.probe(probes="shuffled", max_prompt_tokens=2048)
    monkeypatch.setattr(stage, "open_scorer", bench.open)
    by_id = bench.probe(probes="shuffled", score="id").artifact
    assert by_id == bench.artifact.parent.with_name(f"{STEM}_id") / "probes.json"


def test_later_probes_ask_only_what_is_new_and_tell_all(bench: Bench) -> None:
    bench.probe(probes="shuffled")
    assert bench.asked == 140
    bench.probe(probes="last-item")
    assert bench.asked == 70
    assert list(bench.facts["probes"]) == ["shuffled", "last-item"]
    bench.probe(probes="position", rotations=5)
    assert bench.asked == 4 * 70
    bench.probe(probes="position")
    assert bench.asked == 5 * 70, "four of the nine rotations are there"
    bench.probe(probes="popularity", top_k="1,2")
    assert bench.asked == 0
    assert bench.facts["probes"]["position"]["rotations"] == 10
    assert "NDCG@2" in bench.facts["probes"]["shuffled"]["metrics"]


def test_more_users_extend_and_fewer_ask_nothing_but_the_rest_of_a_chunk(bench: Bench) -> None:
    bench.probe(probes="shuffled")
    fewer = timeless(bench.facts)
    assert bench.asked == 140
    bench.probe(probes="shuffled", limit=140)
    assert bench.asked == 2 * (140 - 64), "a chunk is 64 users; the one that was not full is asked again"
    assert bench.facts["num_users"] == 140
    bench.probe(probes="shuffled")
    assert bench.asked == 0
    assert timeless(bench.facts) == fewer
    bench.probe(probes="shuffled", limit=None)
    assert bench.asked == 2 * (160 - 128)


def test_a_crash_costs_one_chunk(bench: Bench) -> None:
    """The plain prompts are chunks of 64 and 6 and the changed ones too: the third is broken off."""
    bench.breaks_after = 64 + 6 + 30
    with pytest.raises(OSError, match="the disk is full"):
        bench.probe(probes="shuffled")
    assert not bench.artifact.exists()
    bench.breaks_after, bench.opened = None, []
    again = timeless(bench.probe(probes="shuffled").facts)
    assert bench.asked == 70
    assert timeless(bench.probe(probes="shuffled", overwrite=True).facts) == again
    assert bench.asked == 140
    assert not list(bench.artifact.parent.glob("*.partial.jsonl"))


def test_lost_scores_are_asked_for_again(bench: Bench) -> None:
    whole = timeless(bench.probe(probes="shuffled").facts)
    bench.artifact.with_name("probes.scores.jsonl").unlink()
    assert bench.asked == 140
    assert timeless(bench.probe(probes="shuffled").facts) == whole
    assert bench.asked == 140


def write_traces(workspace: Workspace, words: str) -> int:
    interactions = Interactions.load(workspace, DATASET)
    examples, _ = questions(interactions.training_lines(), "train", WINDOW, "last")
    records = [
        own(example.user_id, " ".join((*example.history, example.target_id)), reasoning=words) for example in examples
    ]
    write_json(workspace.dataset(DATASET).pseudo_cot, records)
    return len(records)


def test_hints_are_probed_where_traces_are_and_again_when_they_change(bench: Bench) -> None:
    assert "no traces" in bench.probe(probes="hint", limit=10).facts["probes"]["hint"]["says"]
    assert bench.asked == 10
    assert write_traces(bench.workspace, "Step 1: likes lanterns.") > 10
    found = bench.probe(probes="hint", limit=10).facts["probes"]["hint"]
    assert found["num_examples"] == 10
    assert found["evaluations"] == 2
    assert bench.asked == 20
    write_traces(bench.workspace, "Step 1: likes engines.")
    bench.probe(probes="hint", limit=10)
    assert bench.asked == 20, "the plain prompts are as they were"


def test_captions_are_swapped_where_prompts_hold_them(bench: Bench) -> None:
    items = Interactions.load(bench.workspace, DATASET).catalogue.ids
    rows = {item: {"title": "t", "caption": f"picture {number % 3}"} for number, item in enumerate(items)}
    write_json(bench.workspace.dataset(DATASET).captions, rows)
    found = bench.probe(probes="caption-swap", limit=20).facts["probes"]["caption-swap"]
    assert found["first_choice_kept"]["value"] == 1.0
    assert "no use of captions was found" in found["says"]
    with pytest.raises(ArtifactError, match=r"captions"):
        bench.probe(probes="caption-swap", limit=20, captions="off")


def test_a_score_that_is_no_number_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "judge", lambda seen: [float("nan")] * len(seen.candidates))
    with pytest.raises(ValueError, match="The score of candidate 1 of 10 is NaN"):
        bench.probe(probes="shuffled", limit=3)


def test_mistaken_probes_are_named() -> None:
    with pytest.raises(SettingsError, match="there is no probe 'positon'; did you mean position"):
        validated(ProbeSettings, {"dataset": "d", "probes": "positon,hint"}, "mllmrec probe")
    with pytest.raises(SettingsError, match="probes is empty"):
        validated(ProbeSettings, {"dataset": "d", "probes": ""}, "mllmrec probe")
    assert ProbeSettings(dataset="d", probes="hint,shuffled,hint").probes == ("shuffled", "hint")


def test_what_is_stored_is_what_was_scored(bench: Bench) -> None:
    """The kept scores stand alone: every chunk names its users and holds one list of scores for each."""
    bench.probe(probes="shuffled", limit=70)
    rows = list(read_jsonl(bench.artifact.with_name("probes.scores.jsonl")))
    assert [row["key"] for row in rows] == ["plain:0-64", "plain:64-70", "shuffled:0-64", "shuffled:64-70"]
    assert [np.shape(row["scores"]) for row in rows] == [(64, 10), (6, 10)] * 2
    assert rows[0]["examples"] == rows[2]["examples"]
