"""No row is misled: models whose positions depend on what else stands in a row or batch are refused by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from chat_families import byte_tokenizer
from small_models import SIZES, WIDE, naive_scores, random_model

from mllmrec.errors import BackendError
from mllmrec.models.base import Request, ScoringTask
from mllmrec.models.chat import Chat
from mllmrec.models.huggingface import HuggingFaceGenerator, LoadedModel
from mllmrec.models.positions import scaling_limit, verify_scaling
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.models.writing import Prompt, Writer

END, ORIGINAL = 1, 16
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 8.0, 16.0, 32.0],
    "original_max_position_embeddings": ORIGINAL,
    "partial_rotary_factor": 1.0,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
SCALED = ("longrope", "dynamic")
SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 0,
    "eos_token_id": END,
    "pad_token_id": 0,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "Bloom": {"n_layer": 2, "n_head": 4},
    "Mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "Falcon": {"alibi": True},
    "Rwkv": {"attention_hidden_size": 32},
    "Mamba": {"state_size": 4},
}
"""Models that tell positions by distances along a row, or read one token after the other."""


def made(family: str, **config: Any) -> Any:
    """A tiny causal LM with wide random weights, with the attention that its family has."""
    kind = getattr(transformers, f"{family}ForCausalLM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention = "sdpa" if kind._supports_sdpa else "eager"
        own = getattr(transformers, f"{family}Config")(**(SMALL | config))
        model = kind._from_config(own, attn_implementation=attention).eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=WIDE)
    return model


def scaled(kind: str, **config: Any) -> Any:
    """A model whose positions are scaled past 16 tokens."""
    if kind == "dynamic":
        return random_model("Llama", rope_parameters=dict(DYNAMIC), max_position_embeddings=ORIGINAL, **config)
    lengths = {"max_position_embeddings": 64, "original_max_position_embeddings": ORIGINAL}
    return random_model("Phi3", rope_parameters=dict(LONGROPE), **lengths, **config)


def scored(model: Any, tasks: list[ScoringTask]) -> list[list[float]]:
    found = dict(HuggingFaceScorer(model).score(tasks))
    return [found[place] for place in range(len(tasks))]


# ---- scalings that depend on the longest row


@pytest.mark.parametrize("kind", SCALED)
def test_a_longer_row_would_change_the_numbers_of_those_beside_it(kind: str) -> None:
    """What the refusal is for: in one batch a short row is read with the positions of the long one."""
    model = scaled(kind)
    short = list(range(2, 12))
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([short])).logits[0, 9]
        beside = model(input_ids=torch.tensor([[*short, *[0] * 20], [3] * 30])).logits[0, 9]
    assert (alone.log_softmax(-1) - beside.log_softmax(-1)).abs().max() > 0.1


@pytest.mark.parametrize("kind", SCALED)
def test_a_scaled_model_scores_up_to_its_original_length_and_no_further(kind: str) -> None:
    model = scaled(kind)
    tasks = [
        ScoringTask(prompt_T=list(range(2, 2 + length)), answers_C=[[5, 6, END], [5, 7, END], [9, 8, END]])
        for length in (3, 13, 7)
    ]
    found = scored(model, tasks)
    for task, scores in zip(tasks, found, strict=True):
        assert scores == pytest.approx(naive_scores(model, task.prompt_T, task.answers_C), abs=1e-4)
    longer = ScoringTask(prompt_T=list(range(2, 16)), answers_C=[[5, 6, END]])
    with pytest.raises(BackendError, match=rf"takes 17 tokens, and \w+ scales positions \({kind}\) .*passes 16 tokens"):
        scored(model, [*tasks, longer])


@pytest.mark.parametrize("kind", SCALED)
def test_generation_refuses_what_may_pass_the_original_length(kind: str) -> None:
    model = scaled(kind)
    tokenizer = SimpleNamespace(
        pad_token_id=0, added_tokens_decoder={}, decode=lambda ids, **_: " ".join(map(str, ids))
    )
    loaded = LoadedModel(model=model, tokenizer=tokenizer, chat=SimpleNamespace(end_id=END), names=("m",), hashes={})
    generator = HuggingFaceGenerator(loaded)
    prompts = [[5, 6, 7], list(range(2, 12))]
    together = generator.generate(prompts, num_answers=2, max_new_tokens=6)
    assert together == [generator.generate([prompt], num_answers=2, max_new_tokens=6)[0] for prompt in prompts]
    with pytest.raises(BackendError, match=r"takes 17 tokens.*Expected at most 16: lower --max-prompt-tokens"):
        generator.generate(prompts, num_answers=2, max_new_tokens=7)


def test_a_teacher_takes_no_prompt_that_may_pass_the_original_length() -> None:
    tokenizer = byte_tokenizer("{%- for m in messages %}{{- m.content }}{%- endfor %}")
    model = scaled("longrope", vocab_size=len(tokenizer), eos_token_id=258)
    writer = Writer(model, Chat(tokenizer, thinking=False), batch=2, max_new_tokens=6)
    requests = [Request(key=str(length), text="x" * length) for length in (10, 11)]
    replies = writer.answer(requests, lambda one: Prompt(key=one.key, ids=[70] * len(one.text)))
    assert {reply.key: reply.failure == "prompt_too_long" for reply in replies} == {"10": False, "11": True}


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        ({"rope_type": "default", "rope_theta": 1.0}, None),
        ({"rope_type": "yarn", "rope_theta": 1.0, "factor": 4.0, "original_max_position_embeddings": 8}, None),
        ({"rope_type": "llama3", "rope_theta": 1.0, "original_max_position_embeddings": 8}, None),
        (LONGROPE, ORIGINAL),
        (DYNAMIC, 64),
        ({"full_attention": LONGROPE, "sliding_attention": {"rope_type": "default"}}, ORIGINAL),
        ({"full_attention": LONGROPE, "sliding_attention": DYNAMIC}, ORIGINAL),
        (None, None),
    ],
)
def test_the_length_up_to_which_positions_depend_on_nothing_else(rope: Any, limit: int | None) -> None:
    config = SimpleNamespace(rope_parameters=rope, max_position_embeddings=64)
    config.get_text_config = lambda: config
    model = SimpleNamespace(config=config)
    assert scaling_limit(model) == limit
    verify_scaling(model, limit or 10_000)


# ---- families


@pytest.mark.parametrize("family", SPECIAL)
def test_what_cannot_share_a_row_is_scored_in_rows_of_its_own(family: str) -> None:
    """ALiBi and recurrent layers; refused where a tree is asked for."""
    model = made(family, **SPECIAL[family])
    tasks = [
        ScoringTask(prompt_T=[5, 9], answers_C=[[END], [2, END]]),
        ScoringTask(prompt_T=list(range(2, 32)), answers_C=[[2, 3, 4, END], [2, 3, 5, END], [9, 8, END]]),
    ]
    for task, scores in zip(tasks, scored(model, tasks), strict=True):
        assert scores == pytest.approx(naive_scores(model, task.prompt_T, task.answers_C), abs=1e-3)
    with pytest.raises(BackendError, match=rf"{family}ForCausalLM .*--layout tree would be wrong"):
        HuggingFaceScorer(model, layout="tree")


def test_a_cache_that_forgets_beyond_the_window_is_not_used() -> None:
    """Moshi's own cache gives other logits once a prompt passes its window, which no short probe shows."""
    model = made("Moshi", sliding_window=16, num_key_value_heads=2, head_dim=8, ffn_dim=48)
    answers = [[20, 22, 21, END], [20, 22, 23, END], [9, 8, END]]
    tasks = [
        ScoringTask(prompt_T=[(7 * place) % 50 + 5 for place in range(length)], answers_C=answers)
        for length in (37, 9, 37)
    ]
    for task, scores in zip(tasks, scored(model, tasks), strict=True):
        assert scores == pytest.approx(naive_scores(model, task.prompt_T, task.answers_C), abs=1e-3)
    with pytest.raises(BackendError, match=r"cache layout otherwise than each alone .* with a prompt of 37 tokens"):
        dict(HuggingFaceScorer(model, layout="cache").score(tasks))


def test_attention_to_chosen_tokens_is_refused_where_the_choice_depends_on_what_follows() -> None:
    """Of a long prompt DeepSeek-V3.2 reads the tokens that an index chooses, here among many equal ones."""
    sizes = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
    index = {"index_topk": 16, "index_n_heads": 4, "index_head_dim": 16, "num_key_value_heads": 4}
    more = {"num_hidden_layers": 4, "n_group": 1, "topk_group": 1, "initializer_range": WIDE}
    config = transformers.DeepseekV32Config(**(SIZES | sizes | experts | index | more))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.DeepseekV32ForCausalLM(config).eval()
    answers = [[20, 22, 21, END], [20, 22, 23, END], [9, 8, END]]
    short, long = (
        ScoringTask(prompt_T=[(7 * place) % 50 + 5 for place in range(length)], answers_C=answers) for length in (9, 60)
    )
    [scores] = scored(model, [short])
    assert scores == pytest.approx(naive_scores(model, short.prompt_T, answers), abs=1e-3)
    with pytest.raises(BackendError, match=r"apart layout otherwise than each alone .* with a prompt of 60 tokens"):
        scored(model, [short, long])


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("Falcon", {"alibi": False}),
        ("GPTNeoX", {"intermediate_size": 48}),
        ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}),
        ("GptOss", {"head_dim": 8, "num_key_value_heads": 2, "num_local_experts": 4, "intermediate_size": 16}),
    ],
)
def test_other_families_score_as_answer_by_answer(family: str, config: dict[str, Any]) -> None:
    model = made(family, **config)
    tasks = [
        ScoringTask(prompt_T=[5], answers_C=[[END], [2, END]]),
        ScoringTask(prompt_T=list(range(2, 32)), answers_C=[[2, 3, 4, END], [2, 3, 5, END], [9, 8, END]]),
    ]
    for task, scores in zip(tasks, scored(model, tasks), strict=True):
        assert scores == pytest.approx(naive_scores(model, task.prompt_T, task.answers_C), abs=1e-3)


@pytest.mark.parametrize("family", ["Rwkv", "RecurrentGemma"])
def test_a_recurrent_model_writes_in_a_batch_what_it_writes_alone(family: str) -> None:
    """It reads whatever padding stands before a prompt, so that it gets one prompt at a time."""
    config = {"Rwkv": {"attention_hidden_size": 32}, "RecurrentGemma": {"head_dim": 8, "lru_width": 32}}[family]
    tokenizer = byte_tokenizer("")
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 257, "eos_token_id": 258, "pad_token_id": 256}
    model = made(family, **ids, **config, **({"num_hidden_layers": 3} if family == "RecurrentGemma" else {}))
    end = SimpleNamespace(end_id=258)
    generator = HuggingFaceGenerator(LoadedModel(model=model, tokenizer=tokenizer, chat=end, names=("m",), hashes={}))
    prompts = [[70 + place for place in range(length)] for length in (3, 9, 20, 9)]
    together = generator.generate(prompts, num_answers=1, max_new_tokens=8)
    assert together == [generator.generate([prompt], num_answers=1, max_new_tokens=8)[0] for prompt in prompts]
    assert len({texts[0] for texts in together}) == 3


def test_beams_that_a_model_can_not_keep_apart_are_told_in_one_paragraph() -> None:
    tokenizer = byte_tokenizer("")
    model = made("Rwkv", vocab_size=len(tokenizer), attention_hidden_size=32)
    end = SimpleNamespace(end_id=258)
    generator = HuggingFaceGenerator(LoadedModel(model=model, tokenizer=tokenizer, chat=end, names=("m",), hashes={}))
    with pytest.raises(BackendError, match=r"m can't write 3 answers to a prompt: .*ask for one answer"):
        generator.generate([[70, 71]], num_answers=3, max_new_tokens=4)


def test_an_answer_ends_once_whatever_else_is_written_beside_it() -> None:
    """Rows are filled up to the longest of their batch, and not every tokenizer drops what fills them."""
    model = random_model(seed=14)
    tokenizer = SimpleNamespace(
        pad_token_id=0, added_tokens_decoder={}, decode=lambda ids, **_: " ".join(map(str, ids))
    )
    end = SimpleNamespace(end_id=END)
    generator = HuggingFaceGenerator(LoadedModel(model=model, tokenizer=tokenizer, chat=end, names=("m",), hashes={}))
    prompts = [[10 + place for place in range(length)] for length in (3, 9, 20, 9)]
    together = generator.generate(prompts, num_answers=2, max_new_tokens=6)
    assert together == [generator.generate([prompt], num_answers=2, max_new_tokens=6)[0] for prompt in prompts]
    assert together[0][0] == "18 54 1"
