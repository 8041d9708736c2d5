"""`grpo --replay`: its closed forms against simulation and against answers that are really sampled; what it writes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import DATASET, WINDOW, grpo_settings, naive_scores, random_model

from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError
from mllmrec.models.huggingface import load
from mllmrec.models.ranker import ranker_of
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.records import RankingExample, Summary
from mllmrec.storage.workspace import Workspace, read_json
from mllmrec.training.datasets import training_examples
from mllmrec.training.grpo import rollout_check as replay
from mllmrec.training.grpo import stage as grpo
from mllmrec.training.grpo.rewards import REWARDS, outcome
from mllmrec.training.grpo.rollout_check import OUTCOMES, outcome_rewards, suggest, suggest_rollouts, zero_advantage

CHANCES = np.array([[0.5, 0.3, 0.1, 0.1], [0.05, 0.05, 0.85, 0.05], [0.97, 0.01, 0.01, 0.01], [0.25] * 4])


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("size", replay.GROUPS)
def test_the_closed_form_agrees_with_simulated_groups(name: str, size: int) -> None:
    """40,000 groups of each prompt; three standard errors of a share are at most .0075."""
    rng, rewards = np.random.default_rng(7), np.array(outcome_rewards(REWARDS[name]))
    expected = zero_advantage(CHANCES, rewards.tolist(), size)
    for chances, share in zip(CHANCES, expected, strict=True):
        paid = rewards[rng.choice(4, (40_000, size), p=chances)]
        assert np.mean(paid.max(axis=1) == paid.min(axis=1)) == pytest.approx(share, abs=0.0075)


def test_a_share_worked_out_by_hand() -> None:
    """The strict rule pays the same outside the list and for no answer: .5^2 + .3^2 + .2^2. The reference rule pays
    the same for another candidate and outside the list: .5^2 + .4^2 + .1^2."""
    assert zero_advantage(CHANCES[:1], outcome_rewards(REWARDS["strict"]), 2) == pytest.approx([0.38])
    assert zero_advantage(CHANCES[:1], outcome_rewards(REWARDS["reference"]), 2) == pytest.approx([0.42])


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), st.integers(2, 12))
def test_a_larger_group_teaches_more_often(weights: list[float], size: int) -> None:
    chances = np.array([weights]) / sum(weights)
    rewards = outcome_rewards(REWARDS["strict"])
    smaller, larger = zero_advantage(chances, rewards, size)[0], zero_advantage(chances, rewards, size + 1)[0]
    assert 0 < larger < smaller < 1


def test_the_smallest_group_that_teaches_is_suggested() -> None:
    """At most half of the groups may teach nothing; the temperature nearest to 1 comes first, the lower of two."""
    shares = {(2, 1.0): 0.6, (2, 1.3): 0.52, (4, 0.7): 0.3, (4, 1.3): 0.2, (8, 1.0): 0.1}
    assert suggest(shares) == (4, 0.7)
    assert suggest(shares | {(4, 1.0): 0.5}) == (4, 1.0)
    assert suggest({(2, 1.0): 0.99, (16, 0.7): 0.9, (16, 1.3): 0.8}) == (16, 1.3)


@pytest.mark.parametrize(
    ("generated", "drawn", "text"),
    [
        (0.4, 0.1, "--num-generations 4 --temperature 1 (about 40% of the groups without advantage)"),
        (
            0.9,
            0.3,
            "--rollouts candidates --num-generations 4 --temperature 1 (about 30% of the groups without advantage; 90% "
            "at best if the model writes)",
        ),
        (
            0.9,
            0.6,
            "--rollouts exact (sampling would leave about 60% of the groups without advantage even with "
            "--num-generations 4 --temperature 1 --rollouts candidates)",
        ),
    ],
)
def test_a_way_without_sampling_is_suggested_where_samples_teach_nothing(
    generated: float, drawn: float, text: str
) -> None:
    rollouts = suggest_rollouts(generated, drawn)
    assert replay._suggestion(rollouts, {(4, 1.0): generated}, {(4, 1.0): drawn})["text"] == text


def test_drawing_among_candidates_is_a_hit_or_a_miss() -> None:
    """exp(s) = (.1, .3) over Z = .4; what comes after the whole answers is left out."""
    example = RankingExample(
        example_id="e", user_id="u", history=(), candidates=("1", "2"), target_id="2", split="train"
    )
    scores = [float(np.log(value)) for value in (0.1, 0.3, 0.9, 0.9, 0.95)]
    assert replay._drawn_chances(scores, example) == pytest.approx([0.75, 0.25, 0, 0])


def test_scores_at_a_temperature_are_those_of_divided_logits() -> None:
    """By the plain way: the output embedding of the model divided by the temperature."""
    from mllmrec.models.base import ScoringTask

    prompt, answers = [5, 9, 11, 4], [[7, 8, 1], [7, 12, 3, 1], [20, 1]]
    task = ScoringTask(prompt_T=prompt, answers_C=answers)
    model, cooled = random_model(), random_model(tie_word_embeddings=False)
    [(_, plain)] = HuggingFaceScorer(model).score([task])
    assert plain == pytest.approx(naive_scores(model, prompt, answers), abs=1e-4)
    [(_, scores)] = HuggingFaceScorer(cooled, temperature=0.7).score([task])
    with torch.no_grad():
        cooled.lm_head.weight /= 0.7
    assert scores == pytest.approx(naive_scores(cooled, prompt, answers), abs=1e-4)


def told(workspace: Workspace, **knobs: Any) -> Summary:
    return grpo.run(grpo_settings(workspace, **({"replay": True, "limit": None} | knobs)), workspace)


def test_a_replay_tells_and_trains_nothing(trained_copy: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """The only thing written is the file beside the model; G and temperature of one's own join the grid."""
    before = {path for path in trained_copy.root.rglob("*") if path.is_file()}
    summary = told(trained_copy, limit=12, num_generations=6, temperature=0.9, top_p=0.9, tag="never")
    path = trained_copy.checkpoint(DATASET, "full").with_name("full.replay.json")
    assert {path for path in trained_copy.root.rglob("*") if path.is_file()} - before == {path}
    assert "--top-p 0.9 isn't reckoned with" in capsys.readouterr().err
    report = read_json(path)
    assert report["num_prompts"] == 12
    assert list(report["outcomes"]) == ["0.7", "0.9", "1.0", "1.3"]
    assert list(report["zero_advantage_share"]) == ["2", "4", "6", "8", "16"]
    for chances in report["outcomes"].values():
        values = {name: value for name, (value, _, _) in chances.items()}
        assert sum(values[name] for name in OUTCOMES) == pytest.approx(1)
        assert values["invalid"] == pytest.approx(values["foreign"] + values["formless"])
        assert values["reward"] == pytest.approx(values["hit"] - 1.5 * values["invalid"])
        assert values["whole"] <= values["hit"] + values["miss"]
        assert all(low <= value <= high for value, low, high in chances.values())
    for heat in report["outcomes"]:
        falling = [row[heat][0] for row in report["zero_advantage_share"].values()]
        assert falling == sorted(falling, reverse=True)
    assert summary.headline.endswith(f"suggested {report['suggested']['text']}")
    for heat in report["outcomes"]:
        falling = [row[heat][0] for row in report["zero_advantage_share_of_candidates"].values()]
        assert falling == sorted(falling, reverse=True)
    assert [len(table.rows) for table in summary.tables] == [4, 5, 5]
    assert "would name no candidate" in summary.warnings[0]
    least = min(row[heat][0] for row in report["zero_advantage_share"].values() for heat in report["outcomes"])
    rollouts = report["suggested"]["rollouts"]
    assert (rollouts == "generate") == (least <= 0.5)
    assert (f"--rollouts {rollouts}" in summary.headline) == (rollouts != "generate")
    assert {"settings", "inputs", "seconds"} <= report.keys()


def test_a_replay_may_be_asked_for_again_with_other_settings(trained_copy: Workspace) -> None:
    """It is no artifact to be protected; and steps of broken groups are no matter where no step is made."""
    first = told(trained_copy, limit=4, batch=3)
    again = told(trained_copy, limit=4, batch=3, reward="reference")
    assert first.artifact == again.artifact
    assert read_json(Path(str(again.artifact)))["reward"] == "reference"
    with pytest.raises(ArtifactError, match="holds adapters, and GRPO starts from a full model"):
        told(trained_copy, sft_tag="sft")


def test_the_chances_are_those_of_sampled_answers(trained: Workspace) -> None:
    """400 answers are sampled to each of three prompts. The chance of each outcome lies within four standard errors of
    its share, but for answers that open in the right form and break off: those count as outside the list."""
    settings = grpo_settings(trained, limit=3)
    interactions = Interactions.load(trained, DATASET)
    loaded = load(trained, trained.checkpoint(DATASET, "full"), device="cpu")
    ranker = ranker_of(loaded, interactions.catalogue, {}, 2048)
    encoder = ranker.encoder
    examples = training_examples(settings, trained, interactions, WINDOW)
    asked = [examples.example(0, index) for index in range(len(examples))]
    scores = replay._scores(ranker, replay._tasks(asked, examples, encoder), 1.3)
    torch.manual_seed(1)
    for example, row in zip(asked, scores, strict=True):
        hit, miss, foreign, formless = replay._chances(row, example)
        sampled = loaded.model.generate(
            input_ids=torch.tensor([encoder.prompt_ids(example)]),
            do_sample=True,
            temperature=1.3,
            top_k=0,
            top_p=1.0,
            num_return_sequences=400,
            max_new_tokens=8,
            eos_token_id=loaded.chat.end_id,
            pad_token_id=loaded.tokenizer.pad_token_id,
        )[:, len(encoder.prompt_ids(example)) :]
        counts = Counter(outcome(text, example) for text in loaded.tokenizer.batch_decode(sampled, True))
        for chance, name in ((hit, "hit"), (miss, "miss"), (foreign + formless, "invalid")):
            error = (chance * (1 - chance) / 400) ** 0.5
            assert counts[name] / 400 == pytest.approx(chance, abs=4 * error + 0.01)
