"""`mllmrec evaluate`: which model, which candidates, and that no way of working changes the rankings."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from small_models import DATASET, NUM_USERS, WINDOW, copy_of, make_backbone, naive_scores
from transformers import AutoModelForCausalLM

from mllmrec.data.candidates.drawing import read_candidates, sliced
from mllmrec.data.candidates.stage import run as draw_candidates
from mllmrec.data.prompts import parse
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError, DataError, SettingsError
from mllmrec.evaluation.comparison.stage import run as compare
from mllmrec.evaluation.ranking import chunks as joining
from mllmrec.evaluation.ranking import stage as ranking
from mllmrec.evaluation.ranking.chunks import chunk_ranker
from mllmrec.evaluation.ranking.runs import read_run, write_run
from mllmrec.evaluation.reporting.runs import read_ladders
from mllmrec.evaluation.verifying.stage import verify
from mllmrec.launch import WorkShare
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import HuggingFaceGenerator, load
from mllmrec.records import Summary
from mllmrec.settings.data import CandidatesSettings
from mllmrec.settings.evaluation import CompareSettings, EvaluateSettings
from mllmrec.storage.locks import locked
from mllmrec.storage.log_lines import stamped
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl, write_json, write_jsonl

STEM = "test_uni9_w5_s42"


def evaluate(workspace: Workspace, **knobs: Any) -> Summary:
    settings = EvaluateSettings(dataset=DATASET, root=str(workspace.root), device="cpu", **knobs)
    return ranking.run(settings, workspace)


def folder_of(workspace: Workspace, name: str, stem: str = STEM) -> Path:
    return workspace.dataset(DATASET).run(name, stem)


def scores_of(folder: Path) -> dict[str, list[float]]:
    return {row["example_id"]: row["scores"] for row in read_jsonl(folder / "rankings.jsonl")}


def rankings_of(folder: Path) -> bytes:
    return (folder / "rankings.jsonl").read_bytes()


def metrics_of(folder: Path) -> dict[str, float]:
    return {name: value["value"] for name, value in read_json(folder / "metrics.json")["metrics"].items()}


def close(one: Path, other: Path) -> bool:
    ours, theirs = scores_of(one), scores_of(other)
    assert ours.keys() == theirs.keys()
    return all(abs(a - b) < 1e-4 for key in ours for a, b in zip(ours[key], theirs[key], strict=True))


@pytest.fixture(scope="module")
def ranked(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`trained` with the RUN of GRPO's adapters."""
    workspace = copy_of(trained, tmp_path_factory.mktemp("ranked") / "workspace")
    evaluate(workspace, tag="grpo")
    return workspace


@pytest.fixture
def workspace(ranked: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(ranked, tmp_path / "workspace")


@pytest.fixture
def grpo_run(workspace: Workspace) -> Path:
    """The finished RUN of the adapters that GRPO trained."""
    return folder_of(workspace, "grpo")


def test_scores_are_those_of_one_forward_pass_for_each_answer(workspace: Workspace) -> None:
    evaluate(workspace, tag="full", limit=6)
    loaded = load(workspace, f"checkpoints/{DATASET}/full", device="cpu")
    encoder = Encoder.make(loaded.chat, Interactions.load(workspace, DATASET).catalogue, {}, 2048)
    examples = sliced(read_candidates(workspace.dataset(DATASET).candidates("test", "uni9", WINDOW, 42)), 6, 42)
    found = list(read_jsonl(folder_of(workspace, "full", f"{STEM}_limit6") / "rankings.jsonl"))
    for example, row in zip(examples, found, strict=True):
        task = encoder.scoring_task(example)
        assert (row["example_id"], tuple(row["candidates"])) == (example.example_id, example.candidates)
        assert row["scores"] == pytest.approx(naive_scores(loaded.model, task.prompt_T, task.answers_C), abs=1e-4)
        target = row["scores"][row["candidates"].index(example.target_id)]
        assert row["higher"] == sum(score > target for score in row["scores"])
        assert row["rank"] == row["higher"] + 1 + row["ties"] / 2


def test_a_trained_model_beats_chance_and_a_random_one_does_not(workspace: Workspace) -> None:
    evaluate(workspace, tag="full")
    evaluate(workspace, backbone="tiny", min_inter=WINDOW)
    full, tiny = (metrics_of(folder_of(workspace, name)) for name in ("full", "tiny"))
    assert full["HR@3"] > 0.7
    assert 0.2 < tiny["HR@3"] < 0.45
    facts = read_json(folder_of(workspace, "full") / "metrics.json")
    assert (facts["num_users"], facts["protocol"], facts["method"]) == (NUM_USERS, "uni9", "score")
    assert facts["vacuous"] == ["HR@10"]
    assert facts["length_normalised"].keys() >= {"HR@1", "NDCG@3"}
    assert facts["budget"] == {"prompts": NUM_USERS}


def test_a_name_is_the_tag_else_the_sft_tag_else_the_backbones_folder(workspace: Workspace) -> None:
    made = [
        evaluate(workspace, limit=3, **knobs).artifact
        for knobs in (
            {"tag": "sft", "sft_tag": "full"},
            {"sft_tag": "full"},
            {"backbone": "tiny", "min_inter": WINDOW},
            {"backbone": str(workspace.root / "tiny"), "min_inter": WINDOW, "overwrite": True},
        )
    ]
    assert [path.parent.name for path in made if path is not None] == ["sft", "full", "tiny", "tiny"]


def test_adapters_find_their_model_through_the_manifest(grpo_run: Path, workspace: Workspace) -> None:
    """GRPO's adapters belong on the merged model, and score there as they do when it is named."""
    facts = read_json(grpo_run / "metrics.json")
    assert facts["model"].endswith(f"checkpoints/{DATASET}/sft-merged")
    assert facts["adapter"].endswith(f"checkpoints/{DATASET}/grpo")
    before = rankings_of(grpo_run)
    evaluate(workspace, tag="grpo", sft_tag="sft-merged", overwrite=True)
    assert rankings_of(grpo_run) == before
    with pytest.raises(ArtifactError, match=r"was trained on checkpoints/toy/sft-merged, and .*full is not that model"):
        evaluate(workspace, tag="grpo", sft_tag="full", overwrite=True)
    evaluate(workspace, tag="grpo", sft_tag="full", overwrite=True, force=True)
    assert not close(grpo_run, evaluated(workspace, tag="sft"))


def evaluated(workspace: Workspace, **knobs: Any) -> Path:
    folder = evaluate(workspace, **knobs).artifact
    assert folder is not None
    return folder


def test_merged_and_adapted_rank_alike(workspace: Workspace) -> None:
    assert close(evaluated(workspace, tag="sft"), evaluated(workspace, sft_tag="sft-merged"))


def test_a_workspace_that_moved_is_evaluated_as_before(grpo_run: Path, workspace: Workspace, tmp_path: Path) -> None:
    before = rankings_of(grpo_run)
    shutil.rmtree(grpo_run)
    moved = Workspace(workspace.root.rename(tmp_path / "elsewhere"))
    assert rankings_of(evaluated(moved, tag="grpo")) == before


@pytest.mark.parametrize("batch_tokens", [256, 1_000, 100_000])
def test_rankings_do_not_depend_on_the_batch(grpo_run: Path, workspace: Workspace, batch_tokens: int) -> None:
    kept = Path(shutil.copytree(grpo_run, workspace.root / "kept"))
    evaluate(workspace, tag="grpo", batch_tokens=batch_tokens, overwrite=True)
    assert close(grpo_run, kept)
    assert metrics_of(grpo_run) == pytest.approx(metrics_of(kept), abs=1e-6)


def test_a_finished_run_is_left_alone_and_another_one_refused(
    grpo_run: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in grpo_run.iterdir()}
    monkeypatch.setattr(ranking, "open_ranker", None)
    summary = evaluate(workspace, tag="grpo", batch_tokens=512)
    assert "is finished; nothing to do" in summary.headline
    assert summary.tables
    with pytest.raises(ArtifactError, match=r"setting max_prompt_tokens was 4096 and is now 2048"):
        evaluate(workspace, tag="grpo", max_prompt_tokens=2048)
    assert {path.name: path.stat().st_mtime_ns for path in grpo_run.iterdir()} == before


def test_other_cut_offs_need_no_model(grpo_run: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished RUN that is asked at other K tells what a RUN made with these K and its own tells."""
    fresh = evaluated(copy_of(workspace, workspace.root / "copy"), tag="grpo", top_k="1,2,3,5,10", overwrite=True)
    before = rankings_of(grpo_run)
    monkeypatch.setattr(ranking, "open_ranker", None)
    evaluate(workspace, tag="grpo", top_k="1,2")
    ours, theirs = (read_json(folder / "metrics.json") for folder in (grpo_run, fresh))
    varying = ("seconds", "users_per_second", "model", "adapter")
    assert {name: ours[name] for name in ours if name not in varying} == {
        name: theirs[name] for name in theirs if name not in varying
    }
    assert ours["length_normalised"].keys() >= {"HR@1", "HR@2", "NDCG@2", "HR@3", "NDCG@10", "MRR"}
    assert {path.name for path in grpo_run.iterdir()} == {path.name for path in fresh.iterdir()}
    assert rankings_of(grpo_run) == before


def test_the_number_of_generated_answers_is_no_mere_cut_off(workspace: Workspace) -> None:
    knobs = {"tag": "full", "method": "generate", "limit": 2, "max_answer_tokens": 8}
    folder = evaluated(workspace, top_k="1,3", **knobs)
    evaluate(workspace, top_k="2,3", **knobs)
    assert read_json(folder / "metrics.json")["top_k"] == [1, 2, 3]
    with pytest.raises(ArtifactError, match=r"setting top_k was \[1, 2, 3\] and is now \[1, 2\]"):
        evaluate(workspace, top_k="1,2", **knobs)


def test_an_interrupted_ranking_goes_on_at_other_cut_offs(
    grpo_run: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rankings_of(grpo_run)
    shutil.rmtree(grpo_run)
    for chunks, top_k in ((1, "3"), (2, "1,5")):
        with monkeypatch.context() as patched:
            crash_after(chunks, patched)
            if chunks == 1:
                with pytest.raises(OSError, match="the disk is full"):
                    evaluate(workspace, tag="grpo", top_k=top_k)
            else:
                evaluate(workspace, tag="grpo", top_k=top_k)
    assert rankings_of(grpo_run) == before


def crash_after(chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on ranking fails when it has done that many chunks."""

    def breaking(*arguments: Any) -> Any:
        rank, done = chunk_ranker(*arguments), []

        def rank_chunk(examples: Iterable[Any]) -> list[dict[str, Any]]:
            if len(done) == chunks:
                raise OSError("the disk is full")
            done.append(1)
            return rank(list(examples))

        return rank_chunk

    monkeypatch.setattr(ranking, "chunk_ranker", breaking)


def test_a_crash_costs_one_chunk(grpo_run: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """160 users are three chunks. After a crash in the second, and a torn line of it, two are left to do."""
    before = rankings_of(grpo_run)
    shutil.rmtree(grpo_run)
    with monkeypatch.context() as patched:
        crash_after(1, patched)
        with pytest.raises(OSError, match="the disk is full"):
            evaluate(workspace, tag="grpo")
    with pytest.raises(ArtifactError, match="no finished RUN"):
        read_run(grpo_run)
    (log,) = grpo_run.glob("rankings.*.partial.jsonl")
    assert [row.get("key", "header") for row in read_jsonl(log)] == ["header", "0"]
    with log.open("a") as file:
        file.write('{"crc":"8f14e45f","key":"1","usage":{},"row":{"seconds":0.1,"rows":[{"sc')
    with monkeypatch.context() as patched:
        crash_after(2, patched)
        evaluate(workspace, tag="grpo")
    assert rankings_of(grpo_run) == before
    assert not list(grpo_run.glob("*.partial.jsonl"))


def test_what_other_settings_left_unfinished_is_not_gone_on_with(
    grpo_run: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rankings_of(grpo_run)
    shutil.rmtree(grpo_run)
    with monkeypatch.context() as patched:
        crash_after(2, patched)
        with pytest.raises(OSError, match="the disk is full"):
            evaluate(workspace, tag="grpo", max_prompt_tokens=2048)
    evaluate(workspace, tag="grpo")
    assert rankings_of(grpo_run) == before
    assert not list(grpo_run.glob("*.partial.jsonl"))


@pytest.mark.parametrize("order", [("1/2", "2/2"), ("2/2", "1/2"), ("3/3", "1/3", "2/3"), ("1/5", "5/5", "2/5", "3/5")])
def test_shards_join_to_the_same_bytes_in_any_order(
    grpo_run: Path, workspace: Workspace, order: tuple[str, ...]
) -> None:
    before = rankings_of(grpo_run)
    shutil.rmtree(grpo_run)
    for shard in order[:-1]:
        assert "left to other shards" in evaluate(workspace, tag="grpo", shard=shard).headline
        with pytest.raises(ArtifactError, match="no finished RUN"):
            read_run(grpo_run)
    assert evaluate(workspace, tag="grpo", shard=order[-1]).headline.startswith("Ranked the candidates of 160 users")
    assert rankings_of(grpo_run) == before


def test_of_two_parts_that_finish_together_one_joins_and_the_other_says_so(
    grpo_run: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rankings_of(grpo_run)
    shutil.rmtree(grpo_run)
    ranked: list[tuple[joining.RankingJob, WorkShare]] = []

    def keep(job: joining.RankingJob, share: WorkShare) -> Summary:
        ranked.append((job, share))
        return Summary(headline="ranked")

    def slow(*arguments: Any, **more: Any) -> Any:
        time.sleep(0.3)
        return write_run(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(ranking, "join", keep)
        for shard in ("1/2", "2/2"):
            evaluate(workspace, tag="grpo", shard=shard)
    monkeypatch.setattr(joining, "write_run", slow)
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda parts: joining.join(*parts), ranked))
    first, second = sorted(summary.headline for summary in told)
    assert first == f"Ranked the candidates of 160 users with grpo: {grpo_run}"
    assert re.fullmatch("Shard ./2 is ranked; another process has joined what was ranked: .*", second)
    assert told[0].tables == told[1].tables
    assert rankings_of(grpo_run) == before
    assert not list(grpo_run.glob("*.lock"))


def test_a_second_process_on_the_same_part_is_refused(grpo_run: Path, workspace: Workspace) -> None:
    shutil.rmtree(grpo_run)
    settings = EvaluateSettings(dataset=DATASET, root=str(workspace.root), device="cpu", tag="grpo")
    evaluate(workspace, tag="grpo", shard="2/2")
    (log,) = grpo_run.glob("*.partial.jsonl")
    assert log.name.endswith(".1.partial.jsonl")
    held = locked(log.with_name(log.name.removesuffix(".1.partial.jsonl")))
    with held, pytest.raises(ArtifactError, match=rf"is being made by process {os.getpid()}, started"):
        ranking.run(settings, workspace)


@pytest.mark.parametrize(
    "name", ["rankings.0123456789ab", "rankings.0123456789ab.3", "rankings.0123456789ab.0-of-1.partial.jsonl"]
)
def test_a_run_is_made_in_one_way_at_a_time(
    grpo_run: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Another process that ranks the same RUN with other settings keeps this one out, also when it was faster."""
    shutil.rmtree(grpo_run)
    with locked(grpo_run / name), pytest.raises(ArtifactError, match="with other settings or inputs by process"):
        evaluate(workspace, tag="grpo")
    assert not (grpo_run / "manifest.json").exists()

    def overtaken(job: joining.RankingJob, share: WorkShare) -> Summary:
        evaluate(workspace, tag="grpo", max_prompt_tokens=2048)
        return joining.join(job, share)

    with monkeypatch.context() as patched:
        patched.setattr(ranking, "join", lambda job, share: (patched.undo(), overtaken(job, share))[1])
        with pytest.raises(
            ArtifactError, match="already made by `mllmrec evaluate` in another way: setting max_prompt"
        ):
            evaluate(workspace, tag="grpo")


def test_a_missing_shard_is_an_error(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk 1 is lost on the way, as when one process of a launch wrote to another disk."""

    def losing(job: joining.RankingJob, share: WorkShare) -> Summary:
        (log,) = job.folder.glob("*.partial.jsonl")
        lines = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b"".join(line for line in lines if b'"key":"1"' not in line))
        return joining.join(job, share)

    monkeypatch.setattr(ranking, "join", losing)
    with pytest.raises(ArtifactError, match=r"lacks 1 of 3 chunks of users \(first: chunk 1\). Every shard must be"):
        evaluate(workspace, tag="full")
    assert not (folder_of(workspace, "full") / "manifest.json").exists()


def test_what_an_earlier_version_left_unfinished_is_ranked_again_in_words(
    grpo_run: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It kept each chunk under other names and in other lines: scores of its own, which must not be taken."""
    before = rankings_of(grpo_run)
    shutil.rmtree(grpo_run)
    with monkeypatch.context() as patched:
        crash_after(0, patched)
        with pytest.raises(OSError, match="the disk is full"):
            evaluate(workspace, tag="grpo", shard="1/2")
        crash_after(1, patched)
        with pytest.raises(OSError, match="the disk is full"):
            evaluate(workspace, tag="grpo")
    (ours,) = grpo_run.glob("*.partial.jsonl")
    digest = ours.name.split(".")[1]
    row = {"scores": [0.0] * 10, "tokens": [1] * 10}
    lines = [{"chunk": str(chunk), "seconds": 0.1, "budget": {}, "rows": [row] * 64} for chunk in (0, 1, 2)]
    earlier = grpo_run / f"rankings.{digest}.0-of-1.partial.jsonl"
    earlier.write_bytes(b"".join(map(stamped, lines)))
    capsys.readouterr()
    with monkeypatch.context() as patched:
        crash_after(2, patched)
        evaluate(workspace, tag="grpo")
    told = f"{grpo_run}: an earlier version wrote {earlier.name} in another form; the users in it are ranked again."
    assert told in capsys.readouterr().err
    assert rankings_of(grpo_run) == before
    assert not list(grpo_run.glob("*.partial.jsonl"))
    earlier.write_bytes(b"")
    evaluate(workspace, tag="grpo")
    assert not earlier.exists(), "a finished RUN is cleared of it"


def test_a_shard_that_is_none_is_refused() -> None:
    for shard in ("0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(ValueError, match="expected i/n with i from 1 to n"):
            EvaluateSettings(dataset=DATASET, shard=shard)


def test_a_limit_has_a_run_of_its_own(grpo_run: Path, workspace: Workspace) -> None:
    limited = evaluated(workspace, tag="grpo", limit=70)
    assert limited.name == f"{STEM}_limit70"
    whole = scores_of(grpo_run)
    examples = read_candidates(workspace.dataset(DATASET).candidates("test", "uni9", WINDOW, 42))
    assert list(scores_of(limited)) == [example.example_id for example in sliced(examples, 70, 42)]
    assert read_json(limited / "metrics.json")["slice"]["of"] == len(whole) == NUM_USERS
    assert all(scores == pytest.approx(whole[key], abs=1e-4) for key, scores in scores_of(limited).items())


def test_the_id_part_alone_scores_higher_than_the_whole_answer(grpo_run: Path, workspace: Workspace) -> None:
    """A longer answer can only lose probability: log p(id) >= log p(id, title, end)."""
    whole = scores_of(grpo_run)
    folder = evaluated(workspace, tag="grpo", score="id")
    assert folder.name == f"{STEM}_id"
    assert read_run(folder).label == "grpo id"
    ids = scores_of(folder)
    assert all(a >= b - 1e-4 for key in whole for a, b in zip(ids[key], whole[key], strict=True))
    assert any(a > b + 0.01 for key in whole for a, b in zip(ids[key], whole[key], strict=True))


def test_ids_that_an_earlier_version_scored_under_the_plain_name_are_read_there(
    grpo_run: Path, workspace: Workspace
) -> None:
    shutil.rmtree(grpo_run)
    evaluated(workspace, tag="grpo", score="id").rename(grpo_run)
    other = evaluated(workspace, tag="full")
    assert verify(grpo_run, workspace).checks.passed
    compare(CompareSettings(runs=(str(grpo_run), str(other)), root=str(workspace.root)), workspace)
    [ladder] = read_ladders(workspace, DATASET, "NDCG@3")[0]
    assert [(rung.label, rung.manifest.settings["score"]) for rung in ladder.models] == [
        ("full", "answer"),
        ("grpo", "id"),
    ]
    with pytest.raises(ArtifactError, match=r"setting score was 'id' and is now 'answer'"):
        evaluate(workspace, tag="grpo")


def test_generating_ranks_by_beams_on_the_same_prompt(workspace: Workspace) -> None:
    folder = evaluated(workspace, tag="full", method="generate", top_k="1,3", batch=4, limit=12, max_answer_tokens=16)
    assert folder.name == f"{STEM}_generate_limit12"
    facts = read_json(folder / "metrics.json")
    assert facts["method"] == "generate"
    rows = list(read_jsonl(folder / "rankings.jsonl"))
    empty = [row for row in rows if not any(row["scores"])]
    assert facts["invalid_share"] == pytest.approx(len(empty) / 12)
    assert len(empty) < 12
    for row in rows:
        named = sorted((score for score in row["scores"] if score), reverse=True)
        assert named == list(range(len(named), 0, -1))
        assert len(named) <= 3
    one = evaluated(
        workspace, tag="full", method="generate", top_k="1,3", limit=12, max_answer_tokens=16, overwrite=True
    )
    assert list(read_jsonl(one / "rankings.jsonl")) == rows


def test_the_first_beam_is_the_first_answer(workspace: Workspace) -> None:
    """What `evaluate` ranks first is what `generate` of transformers itself answers with three beams."""
    folder = evaluated(workspace, tag="full", method="generate", top_k="3", limit=12, max_answer_tokens=24)
    checkpoint = workspace.checkpoint(DATASET, "full")
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    loaded = load(workspace, checkpoint, device="cpu")
    encoder = Encoder.make(loaded.chat, Interactions.load(workspace, DATASET).catalogue, {}, 2048)
    examples = read_candidates(workspace.dataset(DATASET).candidates("test", "uni9", WINDOW, 42))
    asked = {example.example_id: example for example in examples}
    rows = list(read_jsonl(folder / "rankings.jsonl"))
    assert any(any(row["scores"]) for row in rows)
    for row in rows:
        example = asked[row["example_id"]]
        ids = loaded.tokenizer(encoder.prompt_text(example), return_tensors="pt", add_special_tokens=False)
        beams = model.generate(
            **ids, num_beams=3, num_return_sequences=3, length_penalty=0.0, max_new_tokens=24, do_sample=False
        )
        texts = loaded.tokenizer.batch_decode(beams[:, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        answers = [parse(text).item_id for text in texts]
        valid = list(dict.fromkeys(item for item in answers if item in example.candidates))
        expected = {item: len(valid) - place for place, item in enumerate(valid)}
        assert row["scores"] == [expected.get(item, 0) for item in example.candidates]


def test_the_list_prompt_asks_for_all_in_one_answer(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never saw that prompt may answer badly; what is asked, and of how many answers, is what counts."""
    asked: list[tuple[str, int, int]] = []
    generate = HuggingFaceGenerator.generate

    def recording(self: Any, prompts: Any, *, num_answers: int, max_new_tokens: int) -> list[list[str]]:
        texts = [self.loaded.tokenizer.decode(prompt) for prompt in prompts]
        asked.extend((text, num_answers, max_new_tokens) for text in texts)
        return generate(self, prompts, num_answers=num_answers, max_new_tokens=max_new_tokens)

    monkeypatch.setattr(HuggingFaceGenerator, "generate", recording)
    knobs = {"method": "generate", "list_prompt": True, "top_k": "1,2", "max_answer_tokens": 10}
    folder = evaluated(workspace, tag="full", limit=3, **knobs)
    assert len(asked) == 3
    assert all("Answer with the 2 best, best first" in text for text, _, _ in asked)
    assert {(answers, tokens) for _, answers, tokens in asked} == {(1, 20)}
    assert read_json(folder / "metrics.json")["num_users"] == 3


def test_candidates_of_our_own_by_path(workspace: Workspace, tmp_path: Path) -> None:
    rows = list(read_jsonl(workspace.dataset(DATASET).candidates("test", "uni9", WINDOW, 42)))[:10]
    path = tmp_path / "test_uni9_w5_s1.jsonl"
    write_jsonl(path, rows)
    folder = evaluated(workspace, tag="full", candidates=str(path))
    assert folder.name == "test_uni9_w5_s1"
    assert read_json(folder / "metrics.json")["protocol"] == "foreign-test_uni9_w5_s1"
    assert len(scores_of(folder)) == 10


def test_a_cache_of_the_reference_is_ranked_with_our_prompts(workspace: Workspace) -> None:
    """The cache holds the reference's draw and prompts of its own; the scores are those of our legacy file."""
    ours = workspace.dataset(DATASET).candidates("test", "legacy-uni9", WINDOW, 42)
    rows = [
        {"prompt": "something else", "target_id": row["target_id"], "candidates": row["candidates"]}
        for row in read_jsonl(ours)
    ]
    cache = workspace.dataset(DATASET).processed / "test_generate_seed42_neg9_int_5.json"
    write_json(cache, rows)
    from_cache = evaluated(workspace, tag="full", candidates=str(cache))
    from_ours = evaluated(workspace, tag="full", candidates=str(ours))
    assert from_cache.name == cache.stem
    assert read_json(from_ours / "metrics.json")["protocol"] == "legacy-uni9"
    assert rankings_of(from_cache) == rankings_of(from_ours)
    assert read_json(from_cache / "metrics.json")["protocol"] == "legacy-uni9"
    rows[3]["target_id"] = "999"
    write_json(cache, rows)
    with pytest.raises(DataError, match=r"row 3 doesn't belong to line 4 of the test file"):
        evaluate(workspace, tag="full", candidates=str(cache), overwrite=True)


def test_the_window_is_inherited_and_another_one_refused(workspace: Workspace) -> None:
    """Nobody says five here, and candidates for seven don't even have to exist for the refusal."""
    assert evaluated(workspace, tag="full", limit=1).name.startswith("test_uni9_w5")
    with pytest.raises(SettingsError, match=r"window is 7, and full was trained with 5.* Leave the setting out"):
        evaluate(workspace, tag="full", min_inter=7)
    with pytest.raises(SettingsError, match=r"captions is True, and sft was trained with False"):
        evaluate(workspace, tag="sft", captions="on")


def test_a_candidate_file_of_another_window_is_refused(workspace: Workspace) -> None:
    draw_candidates(CandidatesSettings(dataset=DATASET, root=str(workspace.root), min_inter=6), workspace)
    path = workspace.dataset(DATASET).candidates("test", "uni9", 6, 42)
    with pytest.raises(SettingsError, match=r"windows of 6 items, and full was trained with windows of 5"):
        evaluate(workspace, tag="full", candidates=str(path))
    evaluate(workspace, backbone="tiny", candidates=str(path), limit=2)


def test_what_is_missing_is_told(workspace: Workspace) -> None:
    with pytest.raises(ArtifactError) as error:
        evaluate(workspace, tag="nowhere")
    assert "Finished checkpoints of toy: full, grpo, sft, sft-merged." in str(error.value)
    with pytest.raises(ArtifactError, match=r"holds adapters, and --sft-tag names a full model. .*mllmrec merge"):
        evaluate(workspace, sft_tag="sft")
    with pytest.raises(ArtifactError, match=r"Make it with `mllmrec candidates --dataset toy --split valid"):
        evaluate(workspace, tag="full", split="valid")
    with pytest.raises(ArtifactError, match=r"There is no model 'Qwen3-4B'"):
        evaluate(workspace)
    write_json(workspace.checkpoint(DATASET, "half-way") / "unfinished.json", {})
    with pytest.raises(ArtifactError, match=r"half-way isn't finished"):
        evaluate(workspace, tag="half-way")


def test_a_checkpoint_with_a_manifest_is_finished_whatever_else_is_left_there(workspace: Workspace) -> None:
    """Killed after the manifest was written, before the trainer's own files were cleared away."""
    write_json(workspace.checkpoint(DATASET, "full") / "unfinished.json", {})
    assert evaluate(workspace, tag="full", limit=2).headline.startswith("Ranked the candidates of 2 users")


def test_another_model_under_the_same_name_is_not_taken_for_the_old_one(workspace: Workspace) -> None:
    knobs = {"backbone": "tiny", "min_inter": WINDOW, "limit": 3}
    evaluate(workspace, **knobs)
    make_backbone(workspace, seed=7, overwrite=True)
    with pytest.raises(ArtifactError, match="the input model has changed since"):
        evaluate(workspace, **knobs)


def test_a_crowded_prompt_is_told_in_the_metrics(workspace: Workspace) -> None:
    """A budget that holds the candidates but not all of the history: old history goes, and that is counted."""
    loaded = load(workspace, "tiny", device="cpu")
    encoder = Encoder.make(loaded.chat, Interactions.load(workspace, DATASET).catalogue, {}, 2048)
    examples = read_candidates(workspace.dataset(DATASET).candidates("test", "uni9", WINDOW, 42))[:4]
    longest = max(len(encoder.prompt_ids(example)) for example in examples)
    folder = evaluated(workspace, backbone="tiny", min_inter=WINDOW, limit=4, max_prompt_tokens=longest - 3)
    budget = read_json(folder / "metrics.json")["budget"]
    assert budget["prompts"] == 4
    assert 1 <= budget["history_shortened"] <= 4
    assert json.loads((folder / "manifest.json").read_text())["settings"]["max_prompt_tokens"] == longest - 3
