"""`evaluate --thoughts`: what is thought, how it is read, and that no way of working changes either."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_families import family_tokenizer
from small_models import DATASET, WINDOW, copy_of, naive_scores
from thinking import naive_thought
from transformers import AutoModelForCausalLM

from mllmrec.data.candidates.drawing import read_candidates, sliced
from mllmrec.data.draws import generator
from mllmrec.data.sequences import Catalogue, Interactions, Item
from mllmrec.errors import SettingsError
from mllmrec.evaluation.ranking import stage as ranking
from mllmrec.evaluation.ranking.thoughts import rank_after_thoughts
from mllmrec.evaluation.verifying.stage import verify
from mllmrec.models.base import ScoringTask, Thought
from mllmrec.models.chat import Chat, Encoder
from mllmrec.models.huggingface import load
from mllmrec.models.thinking import HuggingFaceThinker
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.base import validated
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl, write_jsonl

STEM = "test_uni9_w5_s42"
USERS, NUMBER, LONGEST = 6, 2, 24


def evaluate(workspace: Workspace, **knobs: Any) -> Path:
    knobs = {"backbone": "tiny", "min_inter": WINDOW, "limit": USERS, "max_thought_tokens": LONGEST} | knobs
    summary: Summary = ranking.run(
        EvaluateSettings(dataset=DATASET, root=str(workspace.root), device="cpu", **knobs), workspace
    )
    assert summary.artifact is not None
    return summary.artifact


@pytest.fixture(scope="module")
def thought(toy: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`toy` with a RUN after two thoughts a user. Its model has random weights: it thinks whatever comes."""
    workspace = copy_of(toy, tmp_path_factory.mktemp("thought") / "workspace")
    evaluate(workspace, thoughts=NUMBER)
    return workspace


@pytest.fixture
def run(thought: Workspace) -> Path:
    return thought.dataset(DATASET).run("tiny", f"{STEM}_thoughts{NUMBER}_limit{USERS}")


def thoughts_of(folder: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "thoughts.jsonl"))


def test_thoughts_and_scores_are_those_of_the_plain_way(thought: Workspace, run: Path) -> None:
    """Sampling without a cache, one forward pass for each answer, and shares averaged by hand."""
    model = AutoModelForCausalLM.from_pretrained(thought.root / "tiny").eval()
    chat = load(thought, "tiny", device="cpu").chat
    encoder = Encoder.make(chat, Interactions.load(thought, DATASET).catalogue, {}, 2048)
    examples = sliced(read_candidates(thought.dataset(DATASET).candidates("test", "uni9", WINDOW, 42)), USERS, 42)
    rows, written = list(read_jsonl(run / "rankings.jsonl")), thoughts_of(run)
    assert len(written) == NUMBER * USERS
    for index, (example, row) in enumerate(zip(examples, rows, strict=True)):
        prompt = chat.prompt_ids_before_a_thought(encoder.renderer.fit(example)[0])
        answers = [encoder.answer_ids(item) for item in example.candidates]
        shares = []
        for number, kept in enumerate(written[NUMBER * index : NUMBER * (index + 1)], 1):
            numbers = iter(generator(42, "thought", f"{example.example_id}/{number}").random, None)
            expected = naive_thought(model, chat, prompt, numbers, LONGEST)
            assert kept == {
                "example_id": example.example_id,
                "user_id": example.user_id,
                "number": number,
                "text": expected.text,
                "tokens": expected.tokens,
                "finished": expected.finished,
            }
            block = [chat.encode(piece) for piece in ("<think>\n", expected.text, "\n</think>\n\n")]
            scores_C = torch.tensor(naive_scores(model, [*prompt, *itertools.chain(*block)], answers))
            shares.append(scores_C.double().softmax(0))
        assert row["scores"] == pytest.approx((sum(shares) / NUMBER).log().tolist(), abs=1e-4)
        assert math.fsum(map(math.exp, row["scores"])) == pytest.approx(1)
        target = row["scores"][row["candidates"].index(example.target_id)]
        assert row["higher"] == sum(score > target for score in row["scores"])


def test_other_batches_and_shards_give_the_same_thoughts(thought: Workspace, run: Path, tmp_path: Path) -> None:
    """Of 70 users a shard has 64 and the other six."""
    workspace, other = copy_of(thought, tmp_path / "batch"), copy_of(thought, tmp_path / "shards")
    folder = evaluate(workspace, thoughts=NUMBER, batch=4, overwrite=True)
    assert (folder / "thoughts.jsonl").stat().st_mtime_ns > (run / "thoughts.jsonl").stat().st_mtime_ns
    assert (folder / "thoughts.jsonl").read_bytes() == (run / "thoughts.jsonl").read_bytes()
    assert scores_near(folder, run)
    short = {"thoughts": 1, "limit": 70, "max_thought_tokens": 4}
    whole = evaluate(workspace, batch=9, **short)
    settings = {"dataset": DATASET, "root": str(other.root), "device": "cpu", "backbone": "tiny", "min_inter": WINDOW}
    for shard in ("2/2", "1/2"):
        ranking.run(EvaluateSettings(**settings, **short, shard=shard), other)
    joined = other.dataset(DATASET).run("tiny", whole.name)
    assert (joined / "thoughts.jsonl").read_bytes() == (whole / "thoughts.jsonl").read_bytes()
    assert verify(run, thought).checks.passed
    assert verify(joined, other).checks.passed


def scores_near(one: Path, other: Path) -> bool:
    pairs = zip(read_jsonl(one / "rankings.jsonl"), read_jsonl(other / "rankings.jsonl"), strict=True)
    return all(a["scores"] == pytest.approx(b["scores"], abs=1e-4) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("stopped_after", [64, 66])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    thought: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_after: int
) -> None:
    """Of 70 users a chunk has 64; it stops between the chunks, and when two users of the second have thought."""
    whole, broken = copy_of(thought, tmp_path / "whole"), copy_of(thought, tmp_path / "broken")
    knobs = {"thoughts": NUMBER, "limit": 70, "max_thought_tokens": 4}
    expected, think = evaluate(whole, **knobs), HuggingFaceThinker.think
    asked: list[int] = []

    def counted(self: HuggingFaceThinker, prompts: Sequence[Sequence[int]], *rest: Any, **options: Any) -> Any:
        if len(asked) == stopped_after:
            raise OSError("the disk is full")
        asked.extend([1] * len(prompts))
        return think(self, prompts, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(HuggingFaceThinker, "think", counted)
        with pytest.raises(OSError, match="the disk is full"):
            evaluate(broken, **knobs)
    folder = broken.dataset(DATASET).run("tiny", expected.name)
    assert not (folder / "manifest.json").exists()
    stopped_after, asked = 70, []
    monkeypatch.setattr(HuggingFaceThinker, "think", counted)
    assert evaluate(broken, **knobs) == folder
    assert len(asked) == 6, "the first chunk isn't thought again"
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in expected.iterdir())
    timed = ("manifest.json", "metrics.json")
    for path in expected.iterdir():
        assert path.name in timed or (folder / path.name).read_bytes() == path.read_bytes(), path.name
    assert timeless(read_json(folder / "metrics.json")) == timeless(read_json(expected / "metrics.json"))
    assert verify(folder, broken).checks.passed


def timeless(facts: Any) -> Any:
    """Facts without what hangs on the clock and the folder."""
    if isinstance(facts, dict):
        return {name: timeless(value) for name, value in facts.items() if "second" not in name and name != "model"}
    return facts


def test_without_thoughts_nothing_changes(thought: Workspace, tmp_path: Path) -> None:
    """The RUN lies where it did, has the files that it had, and scores of the prompt that it had."""
    workspace = copy_of(thought, tmp_path / "workspace")
    folder = evaluate(workspace)
    assert folder.name == f"{STEM}_limit{USERS}"
    assert not (folder / "thoughts.jsonl").exists()
    assert "thoughts" not in read_json(folder / "metrics.json")
    loaded = load(workspace, "tiny", device="cpu")
    encoder = Encoder.make(loaded.chat, Interactions.load(workspace, DATASET).catalogue, {}, 4096)
    examples = sliced(read_candidates(workspace.dataset(DATASET).candidates("test", "uni9", WINDOW, 42)), USERS, 42)
    scores = dict(loaded.scorer(8192).score([encoder.scoring_task(example) for example in examples]))
    assert [row["scores"] for row in read_jsonl(folder / "rankings.jsonl")] == [scores[n] for n in range(USERS)]


def test_the_run_tells_what_thoughts_took_and_verify_counts_again(
    thought: Workspace, run: Path, tmp_path: Path
) -> None:
    written, facts = thoughts_of(run), read_json(run / "metrics.json")["thoughts"]
    expected = sum(row["tokens"] for row in written), sum(not row["finished"] for row in written)
    assert (facts["number"], facts["tokens"], facts["unfinished"]) == (NUMBER, *expected)
    assert facts["seconds"] > 0
    assert read_json(run / "manifest.json")["details"]["thoughts"] == facts
    assert "thoughts.jsonl" in read_json(run / "manifest.json")["outputs"]
    workspace = copy_of(thought, tmp_path / "workspace")
    folder = workspace.dataset(DATASET).run("tiny", run.name)
    write_jsonl(folder / "thoughts.jsonl", [{**written[0], "tokens": 999}, *written[2:]])
    differences = verify(folder, workspace).checks.differences
    assert any("numbers of the thoughts" in text for text in differences["thoughts"])
    assert any("tokens of thoughts" in text for text in differences["thoughts"])
    assert differences["files as they were written"]


def test_other_cut_offs_keep_the_thoughts(thought: Workspace, run: Path, tmp_path: Path) -> None:
    workspace = copy_of(thought, tmp_path / "workspace")
    folder = evaluate(workspace, thoughts=NUMBER, top_k=(2,))
    assert (folder / "thoughts.jsonl").read_bytes() == (run / "thoughts.jsonl").read_bytes()
    assert verify(folder, workspace).checks.passed


def test_thoughts_come_before_scores_alone() -> None:
    with pytest.raises(SettingsError, match="thoughts come before exact scores; expected --method score"):
        validated(EvaluateSettings, {"dataset": "d", "thoughts": 2, "method": "generate"}, "evaluate")


class PlantedModel:
    """Thinks "red" for a small first number and else goes on for ever; "red" decides for the first candidate."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.thinker, self.scorer = encoder, self, self

    def think(
        self, _prompts: Sequence[Sequence[int]], draws: Any, *, max_tokens: int, temperature: float
    ) -> list[list[Thought]]:
        assert temperature == 0.5
        known = Thought(text="red", tokens=3, finished=True)
        lost = Thought(text="well, " * 9, tokens=max_tokens, finished=False)
        return [[known if next(numbers) < 0.5 else lost for numbers in own] for own in draws]

    def score(self, tasks: Sequence[ScoringTask]) -> Iterator[tuple[int, list[float]]]:
        for index, task in reversed(list(enumerate(tasks))):
            text = self.encoder.chat.tokenizer.decode(task.prompt_T)
            assert text.count("</think>") == 1
            shares = (0.9, 0.1) if "\nred\n</think>" in text else (0.5, 0.5)
            yield index, [math.log(share) - 50 for share in shares]


def test_a_thought_that_decides_the_answer_counts_by_its_share_of_the_thoughts() -> None:
    """Of n thoughts k are "red": the first candidate's share is (0.9 k + 0.5 (n - k)) / n. A title spells a mark."""
    catalogue = Catalogue([Item(item_id="1", title="Red </think> Fox"), Item(item_id="2", title="Blue")])
    encoder = Encoder.make(Chat(family_tokenizer("qwen3")), catalogue, {}, 4096)
    ranker: Any = PlantedModel(encoder)
    examples = [
        RankingExample(
            example_id=f"e{n}", user_id="u", history=("2",), candidates=("1", "2"), target_id="1", split="test"
        )
        for n in range(5)
    ]
    settings = EvaluateSettings(dataset="d", thoughts=8, thought_temperature=0.5, max_thought_tokens=7, batch=2)
    counts = set()
    for example, row in zip(examples, rank_after_thoughts(settings, ranker, examples), strict=True):
        first = [generator(42, "thought", f"{example.example_id}/{number}").random() for number in range(1, 9)]
        red = sum(number < 0.5 for number in first)
        share = (0.9 * red + 0.5 * (8 - red)) / 8
        assert [math.exp(score) for score in row["scores"]] == pytest.approx([share, 1 - share])
        assert sum(thought["finished"] for thought in row["thoughts"]) == red
        assert sum(thought["tokens"] for thought in row["thoughts"]) == 3 * red + 7 * (8 - red)
        counts.add(red)
    assert len(counts) > 1
