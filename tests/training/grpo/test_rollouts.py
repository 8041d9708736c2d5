"""`grpo --rollouts candidates`: draws that depend on nothing but their key, in the right shares; what is logged."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import DATASET, WINDOW, grpo_settings, naive_scores, shorten_validation, weights_of
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from mllmrec.data.sequences import Interactions
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import LoadedModel, load
from mllmrec.records import RankingExample
from mllmrec.storage.workspace import Workspace, read_jsonl
from mllmrec.training.callbacks import LogCallback
from mllmrec.training.datasets import training_examples
from mllmrec.training.grpo import stage as grpo
from mllmrec.training.grpo.sampled import CandidateRollouts, RolloutPrompt

SIZE = 4


@pytest.fixture(scope="module")
def loaded(trained: Workspace) -> LoadedModel:
    return load(trained, trained.checkpoint(DATASET, "full"), device="cpu")


@pytest.fixture(scope="module")
def encoder(trained: Workspace, loaded: LoadedModel) -> Encoder:
    return Encoder.make(loaded.chat, Interactions.load(trained, DATASET).catalogue, {}, 2048)


@pytest.fixture(scope="module")
def asked(trained: Workspace) -> list[RankingExample]:
    interactions = Interactions.load(trained, DATASET)
    examples = training_examples(grpo_settings(trained, limit=5), trained, interactions, WINDOW)
    return [examples.example(0, index) for index in range(len(examples))]


def prompts_of(encoder: Encoder, asked: Sequence[RankingExample], size: int = SIZE) -> list[RolloutPrompt]:
    """Each prompt `size` times in a row, as TRL hands them out."""
    return [RolloutPrompt.of(encoder.prompt_text(one), one, None) for one in asked for _ in range(size)]


def roll(
    loaded: LoadedModel, encoder: Encoder, prompts: list[RolloutPrompt], *, step: int = 3, rank: int = 0, **knobs: Any
) -> dict[str, Any]:
    """The rollouts of one process of a trainer at a step."""
    accelerator = SimpleNamespace(process_index=rank, unwrap_model=lambda model: model)
    trainer = SimpleNamespace(model=loaded.model, accelerator=accelerator, state=SimpleNamespace(global_step=step))
    rollouts = CandidateRollouts(
        **({"encoder": encoder, "num_generations": SIZE, "temperature": 1.0, "seed": 1} | knobs)
    )
    return rollouts(prompts, trainer)


def test_an_answer_is_a_candidate_s_to_the_token(
    loaded: LoadedModel, encoder: Encoder, asked: list[RankingExample]
) -> None:
    prompts = prompts_of(encoder, asked)
    found = roll(loaded, encoder, prompts)
    for prompt, prompt_ids, answer in zip(prompts, found["prompt_ids"], found["completion_ids"], strict=True):
        assert prompt_ids == encoder.prompt_ids(prompt.example)
        assert answer in [encoder.answer_ids(item) for item in prompt.example.candidates]
    assert found["logprobs"] is None
    assert all(0 < mass < 1 for mass in found["outside_mass"])


def test_draws_depend_on_the_step_the_example_and_the_place_alone(
    loaded: LoadedModel, encoder: Encoder, asked: list[RankingExample]
) -> None:
    """Not on the global generator, on the order of prompts, or on how they are dealt out to processes: a group of four
    that two processes share is the group that one would have drawn."""
    prompts = prompts_of(encoder, asked)
    whole = roll(loaded, encoder, prompts)["completion_ids"]
    torch.manual_seed(99)
    turned = prompts_of(encoder, asked[::-1])
    groups = [whole[start : start + SIZE] for start in range(0, len(whole), SIZE)]
    assert roll(loaded, encoder, turned)["completion_ids"] == [answer for group in groups[::-1] for answer in group]
    halves = [roll(loaded, encoder, prompts[10 * rank : 10 * rank + 10], rank=rank) for rank in (0, 1)]
    assert [answer for half in halves for answer in half["completion_ids"]] == whole
    assert roll(loaded, encoder, prompts, step=4)["completion_ids"] != whole
    assert roll(loaded, encoder, prompts, seed=2)["completion_ids"] != whole


def test_answers_come_in_the_shares_of_their_probabilities(
    loaded: LoadedModel, encoder: Encoder, asked: list[RankingExample]
) -> None:
    """4,000 draws of one prompt against one plain forward pass an answer; four standard errors are at most .032."""
    example, size = asked[0], 4000
    found = roll(loaded, encoder, prompts_of(encoder, [example], size), num_generations=size)
    answers = [encoder.answer_ids(item) for item in example.candidates]
    scores = torch.tensor(naive_scores(loaded.model, encoder.prompt_ids(example), answers), dtype=torch.float64)
    counts = Counter(tuple(answer) for answer in found["completion_ids"])
    assert [counts[tuple(answer)] / size for answer in answers] == pytest.approx(scores.softmax(0).tolist(), abs=0.032)
    assert found["outside_mass"][0] == pytest.approx(1 - float(scores.exp().sum()), abs=1e-4)
    chances = scores.softmax(0)
    assert found["candidate_entropy"][0] == pytest.approx(-float((chances * chances.log()).sum()), abs=1e-3)


def test_a_cold_policy_chooses_its_best_candidate(
    loaded: LoadedModel, encoder: Encoder, asked: list[RankingExample]
) -> None:
    example = asked[0]
    cold = roll(loaded, encoder, prompts_of(encoder, [example], 40), num_generations=40, temperature=1e-3)
    answers = [encoder.answer_ids(item) for item in example.candidates]
    scores = naive_scores(loaded.model, encoder.prompt_ids(example), answers)
    best = answers[int(np.argmax(scores))]
    assert {tuple(answer) for answer in cold["completion_ids"]} == {tuple(best)}


def test_a_question_stays_what_it_is_on_its_way(asked: list[RankingExample]) -> None:
    """TRL copies prompts, and loader processes and logs pickle them."""
    question = RolloutPrompt.of("Which?", asked[0], "a hint")
    for there in (copy.deepcopy([question])[0], pickle.loads(pickle.dumps(question))):
        assert there == "Which?"
        assert isinstance(there, str)
        assert (there.example, there.hint) == (asked[0], "a hint")


def align(workspace: Workspace, **knobs: Any) -> Path:
    grpo.run(grpo_settings(workspace, **({"rollouts": "candidates"} | knobs)), workspace)
    return workspace.checkpoint(DATASET, knobs["tag"])


def log_of(folder: Path, column: str) -> list[float]:
    return [row[column] for row in read_jsonl(folder / "training.jsonl") if column in row]


def test_what_is_logged_adds_up(trained_copy: Workspace) -> None:
    """No answer is invalid, so that the strict reward is the share of hits; the model's own entropy is told as well."""
    folder = align(trained_copy, tag="drawn", workers=1)
    assert log_of(folder, "invalid_share") == [0, 0, 0, 0]
    assert log_of(folder, "reward") == pytest.approx(log_of(folder, "hit_share"))
    assert all(0 < mass < 1 for mass in log_of(folder, "outside_mass"))
    assert log_of(folder, "kl")[0] == pytest.approx(0, abs=1e-6)
    assert max(log_of(folder, "kl")) > 1e-5
    row = list(read_jsonl(folder / "metrics.jsonl"))[-1]
    assert row["candidate_entropy"] == pytest.approx(sum(log_of(folder, "candidate_entropy")) / 4)
    assert {"outside_mass", "entropy", "valid_reward", "completion_tokens"} <= row.keys()
    assert any(weight.abs().max() > 0 for name, weight in weights_of(folder).items() if "lora_B" in name)


def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    trained_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LogCallback.on_log

    def on_log(self: LogCallback, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        plain(self, args, state, control, logs=logs, **kwargs)
        if state.global_step == 2:
            os.kill(os.getpid(), 2)

    shorten_validation(trained_copy)
    whole = align(trained_copy, tag="whole", limit=20)
    with monkeypatch.context() as patched:
        patched.setattr(LogCallback, "on_log", on_log)
        with pytest.raises(KeyboardInterrupt, match="stopped at step 3; the same command goes on from there"):
            align(trained_copy, tag="broken", limit=20)
    broken = align(trained_copy, tag="broken", limit=20)
    ours, theirs = weights_of(broken), weights_of(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for column in ("reward", "kl", "outside_mass"):
        assert log_of(broken, column) == log_of(whole, column)


def with_bos(workspace: Workspace) -> Workspace:
    """The model `full` as `plain`, and as `adding` with a tokenizer that begins what it is given with <|endoftext|>."""
    for name in ("plain", "adding"):
        folder = shutil.copytree(workspace.checkpoint(DATASET, "full"), workspace.checkpoint(DATASET, name))
        (folder / "manifest.json").unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos = ("<|endoftext|>", tokenizer.convert_tokens_to_ids("<|endoftext|>"))
    tokenizer.bos_token = bos[0]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("Hi")["input_ids"][0] == bos[1]
    return workspace


@pytest.mark.parametrize("rollouts", ["generate", "candidates"])
def test_a_tokenizer_that_begins_texts_by_itself_changes_nothing(trained_copy: Workspace, rollouts: str) -> None:
    """The trainer is handed the tokens of a prompt, so that it learns what it learns with any other tokenizer."""
    shorten_validation(with_bos(trained_copy))
    knobs = {"rollouts": rollouts, "min_inter": WINDOW, "limit": 8}
    plain, adding = (align(trained_copy, tag=f"on-{name}", sft_tag=name, **knobs) for name in ("plain", "adding"))
    assert log_of(adding, "reward") == log_of(plain, "reward")
    ours, theirs = weights_of(adding), weights_of(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
