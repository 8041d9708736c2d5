"""Exact scores: one forward pass for each user must say what one forward pass for each answer says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from small_models import naive_scores, random_model

from mllmrec.errors import BackendError
from mllmrec.models.base import ScoringTask
from mllmrec.models.scoring import HuggingFaceScorer, evaluating, score_rows
from mllmrec.models.tree_layout import collate, collate_parts, read_after_prompts, read_whole
from mllmrec.models.tries import build_trie, make_rows, plan_batches

END = 1
EXACT = 1e-4
MODELS: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False, "seed": 1},
    "llama": {"family": "Llama", "tie_word_embeddings": False, "seed": 2},
    "eager": {"family": "Llama", "tie_word_embeddings": True, "attn_implementation": "eager"},
}
tokens = st.integers(2, 7)
answers = st.lists(st.lists(tokens, max_size=5).map(lambda ids: [*ids, END]), min_size=1, max_size=6)
tasks = st.builds(
    lambda prompt, answers_C: ScoringTask(prompt_T=prompt, answers_C=answers_C),
    st.lists(st.integers(2, 63), min_size=1, max_size=20),
    answers,
)


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(**MODELS[request.param])


@pytest.fixture(scope="module")
def tied() -> Any:
    return random_model(**MODELS["tied"])


def scored(model: Any, batch: Sequence[ScoringTask], max_tokens: int = 4096) -> list[list[float]]:
    found = dict(HuggingFaceScorer(model, max_tokens).score(batch))
    return [found[index] for index in range(len(batch))]


def naive(model: Any, batch: Sequence[ScoringTask]) -> list[list[float]]:
    return [naive_scores(model, task.prompt_T, task.answers_C) for task in batch]


def close(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> bool:
    return [len(row) for row in found] == [len(row) for row in expected] and all(
        abs(a - b) <= EXACT for row, other in zip(found, expected, strict=True) for a, b in zip(row, other, strict=True)
    )


def test_scores_are_those_of_one_forward_pass_for_each_answer(model: Any) -> None:
    """Prompts of 1 to 40 tokens stand in one batch, answers of 1 to 6 share prefixes of every length."""
    batch = [
        ScoringTask(prompt_T=[5], answers_C=[[END], [2, END]]),
        ScoringTask(
            prompt_T=list(range(2, 42)), answers_C=[[2, 3, 4, END], [2, 3, 5, END], [2, END], [9, 8, 7, 6, 5, END]]
        ),
        ScoringTask(prompt_T=[9] * 17, answers_C=[[2, 3, END]]),
    ]
    found = scored(model, batch)
    assert close(found, naive(model, batch))
    assert min(abs(a - b) for a, b in zip(found[1], found[1][1:], strict=False)) > 100 * EXACT


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(tasks, min_size=1, max_size=4))
def test_any_answers_after_any_prompts(tied: Any, batch: list[ScoringTask]) -> None:
    assert close(scored(tied, batch, max_tokens=64), naive(tied, batch))


def test_ids_that_are_prefixes_of_one_another_share_what_they_share(tied: Any) -> None:
    """12, 123 and 1 with digits as tokens (22, 23, 24), in brackets (20, 21), and without the closing one."""
    whole = [[20, 22, 21, 40, END], [20, 22, 23, 21, 41, END], [20, 22, 23, 24, 21, 42, END]]
    bare = [[20, 22], [20, 22, 23], [20, 22, 23, 24]]
    batch = [ScoringTask(prompt_T=list(range(30, 45)), answers_C=given) for given in (whole, whole[::-1], bare)]
    found = scored(tied, batch)
    assert close(found, naive(tied, batch))
    assert found[0] == pytest.approx(found[1][::-1], abs=1e-5)


def test_a_batch_scores_as_its_rows_one_by_one(model: Any) -> None:
    batch = [
        ScoringTask(prompt_T=[3 + n] * (4 * n + 1), answers_C=[[k, k + n, END] for k in range(2, 9)]) for n in range(6)
    ]
    assert close(scored(model, batch), [scored(model, [task])[0] for task in batch])


@pytest.mark.parametrize("max_tokens", [1, 50, 100, 10_000])
def test_scores_do_not_depend_on_how_rows_are_batched(tied: Any, max_tokens: int) -> None:
    batch = [ScoringTask(prompt_T=[7] * n, answers_C=[[2, 3, END], [2, 4, END]]) for n in (30, 3, 22, 9, 11)]
    assert close(scored(tied, batch, max_tokens), naive(tied, batch))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(task=tasks, data=st.data())
def test_permuting_candidates_permutes_scores(tied: Any, task: ScoringTask, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(task.answers_C))))
    permuted = ScoringTask(prompt_T=task.prompt_T, answers_C=[task.answers_C[index] for index in order])
    plain, moved = scored(tied, [task])[0], scored(tied, [permuted])[0]
    assert moved == pytest.approx([plain[index] for index in order], abs=1e-5)


def test_the_trie_of_three_answers_by_hand() -> None:
    """a b e, a c e and d e: `a` is one node, and an end token is an edge without a node behind it."""
    a, b, c, d, e = 10, 11, 12, 13, END
    trie = build_trie([[a, b, e], [a, c, e], [d, e]])
    assert trie.tokens == [a, b, c, d]
    assert trie.parents == [-1, 0, 0, -1]
    assert trie.depths == [0, 1, 1, 0]
    assert list(zip(trie.sources, trie.targets, strict=True)) == [
        (-1, a),
        (0, b),
        (1, e),
        (0, c),
        (2, e),
        (-1, d),
        (3, e),
    ]
    assert trie.paths == [[0, 1, 2], [0, 3, 4], [5, 6]]


def test_an_answer_given_twice_takes_no_tokens_of_its_own() -> None:
    once, twice = build_trie([[5, 6, END]]), build_trie([[5, 6, END], [5, 6, END]])
    assert (twice.tokens, twice.targets) == (once.tokens, once.targets)
    assert twice.paths == [once.paths[0]] * 2


def test_the_mask_and_the_positions_by_hand() -> None:
    """Prompt of two tokens, then nodes a, b (after a) and c; the second row is shorter and padded."""
    rows = make_rows(
        [
            ScoringTask(prompt_T=[7, 8], answers_C=[[10, 11, END], [12, END]]),
            ScoringTask(prompt_T=[9], answers_C=[[10, END]]),
        ]
    )
    input_ids, position_ids, mask = collate(rows, torch.device("cpu"))
    assert input_ids.tolist() == [[7, 8, 10, 11, 12], [9, 10, 0, 0, 0]]
    assert position_ids[0].tolist() == [0, 1, 2, 3, 2]
    assert position_ids[1, :2].tolist() == [0, 1]
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert mask[1, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]


def test_the_two_parts_by_hand() -> None:
    """Each prompt's last token leads its tree, behind the longer prompt; none sees the padding of the shorter."""
    rows = make_rows(
        [
            ScoringTask(prompt_T=[6, 7, 8], answers_C=[[10, 11, END], [12, END]]),
            ScoringTask(prompt_T=[9, 9], answers_C=[[10, END]]),
        ]
    )
    prompt_ids, tree_ids, position_ids, mask = collate_parts(rows, torch.device("cpu"))
    assert prompt_ids.tolist() == [[6, 7], [9, 0]]
    assert tree_ids.tolist() == [[8, 10, 11, 12], [9, 10, 0, 0]]
    assert position_ids[0].tolist() == [2, 3, 4, 3]
    assert position_ids[1, :2].tolist() == [1, 2]
    assert mask[:, 0].int().tolist() == [
        [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 1]],
        [[1, 0, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]],
    ]


@given(batch=st.lists(tasks, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reading_prompts_first_changes_no_score(model: Any, batch: list[ScoringTask]) -> None:
    with torch.no_grad():
        whole, cached = (score_rows(model, make_rows(batch), read) for read in (read_whole, read_after_prompts))
    assert close([row.tolist() for row in whole], [row.tolist() for row in cached])


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30), max_tokens=st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], max_tokens: int) -> None:
    rows = make_rows([ScoringTask(prompt_T=[2] * length, answers_C=[[END]]) for length in lengths])
    batches = plan_batches(rows, max_tokens)
    assert sorted(row.index for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(row.num_tokens for row in batch)
        assert padded <= max_tokens or len(batch) == 1


def test_projecting_in_parts_changes_nothing(tied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [ScoringTask(prompt_T=[3, 4, 5], answers_C=[[n, n + 1, END] for n in range(2, 30)])]
    expected = naive(tied, batch)
    monkeypatch.setattr("mllmrec.models.logits.CPU_PROJECTED_ROWS", 7)
    assert close(scored(tied, batch), expected)


def test_the_vocabulary_projection_of_a_half_precision_model_is_in_float32() -> None:
    """By hand from the last hidden state: rounding logits to bfloat16 would cost some hundredths of a nat."""
    model = random_model(tie_word_embeddings=False, seed=6).to(torch.bfloat16)
    found = scored(model, [ScoringTask(prompt_T=range(2, 12), answers_C=[[5], [9], [33]])])[0]
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([range(2, 12)]), use_cache=False).last_hidden_state[0, -1]
        logp_V = (model.lm_head.weight.float() @ hidden.float()).log_softmax(dim=-1)
        rounded_V = model.lm_head(hidden).float().log_softmax(dim=-1)
    assert found == pytest.approx(logp_V[[5, 9, 33]].tolist(), abs=1e-4)
    assert (rounded_V - logp_V).abs().max() > 1e-3


def test_adapters_are_scored_as_the_model_that_carries_them() -> None:
    base = random_model(seed=4)
    torch.manual_seed(0)
    names = ["q_proj", "v_proj", "down_proj"]
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=names, init_lora_weights=False, lora_dropout=0.5))
    batch = [ScoringTask(prompt_T=list(range(2, 20)), answers_C=[[5, 6, END], [5, 7, 8, END], [END]])]
    adapted.train()
    found = scored(adapted, batch)
    assert adapted.training
    adapted.eval()
    assert close(found, naive(adapted, batch))
    with adapted.disable_adapter():
        assert not close(found, naive(adapted, batch))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("read", [read_whole, read_after_prompts])
def test_scores_carry_the_gradient_of_the_plain_way(read: Any, checkpointing: bool) -> None:
    """With activation checkpointing too, under which a model in training keeps no keys and values."""
    task = ScoringTask(prompt_T=[3, 4, 5, 6], answers_C=[[7, 8, END], [7, 9, END], [10, END]])
    model = random_model(tie_word_embeddings=False, seed=5).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    score_rows(model, make_rows([task]), read)[0].logsumexp(dim=0).backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    plain = []
    for answer in task.answers_C:
        ids = torch.tensor([[*task.prompt_T, *answer]])
        logp_TV = model(input_ids=ids, use_cache=False).logits[0].log_softmax(dim=-1)
        plain.append(logp_TV[torch.arange(3, 3 + len(answer)), torch.tensor(answer)].sum())
    torch.stack(plain).logsumexp(dim=0).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-4, rtol=1e-3)


def test_the_mode_of_a_model_is_put_back_even_after_an_error() -> None:
    model = random_model().train()
    modes: list[bool] = []

    def fail() -> None:
        with evaluating(model):
            modes.extend((model.training, torch.is_grad_enabled()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert modes == [False, False]
    assert model.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("cap", [1.0, 30.0])
def test_a_soft_cap_is_part_of_the_scores(cap: float) -> None:
    """As the model's own logits have it, and not as those before the cap."""
    capped, free = (
        random_model("Gemma2", final_logit_softcapping=own, attn_logit_softcapping=None) for own in (cap, 1e9)
    )
    task = ScoringTask(prompt_T=[5, 6, 7, 8], answers_C=[[2, 3, END], [4, END]])
    assert close(scored(capped, [task]), naive(capped, [task]))
    assert not close(scored(capped, [task]), naive(free, [task]))


def test_logits_that_are_changed_in_an_unknown_way_are_refused() -> None:
    model = random_model()

    class Squared(type(model)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits**2
            return output

    model.__class__ = Squared
    with pytest.raises(BackendError, match=r"changes its logits .* exact scoring doesn't know"):
        HuggingFaceScorer(model)


def test_a_prompt_beyond_the_sliding_window_is_read_by_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    sliding = random_model("Mistral", sliding_window=12)
    batch = [
        ScoringTask(prompt_T=[5, 6, 7, 8], answers_C=[[2, 3, END], [4, END]]),
        ScoringTask(prompt_T=[*range(2, 22)], answers_C=[[2, END], [3, 4, 5, END]]),
    ]
    assert close(scored(sliding, batch), naive(sliding, batch))
    assert "by the cache layout: MistralForCausalLM has a sliding window of 12 tokens" in capsys.readouterr().err
    with pytest.raises(BackendError, match=r"sliding window of 12 tokens, beyond which --layout tree can't"):
        dict(HuggingFaceScorer(sliding, layout="tree").score(batch))


def test_a_prompt_of_one_token_has_nothing_to_be_read_first(tied: Any) -> None:
    rows = make_rows([ScoringTask(prompt_T=[7], answers_C=[[10, 11, END], [12, END]])])
    with torch.no_grad():
        whole, cached = (score_rows(tied, rows, read)[0] for read in (read_whole, read_after_prompts))
    assert torch.equal(whole, cached)
