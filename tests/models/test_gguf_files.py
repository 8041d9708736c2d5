"""A GGUF file becomes the model that it was written from, and what would be lost on the way is refused."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from gguf import GGMLQuantizationType
from gguf_writing import sentencepiece_tokens, write_gguf
from small_models import SIZES, WIDE
from tiny_architectures import CONFIGS
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from trl.chat_template_utils import qwen3_chat_template

from mllmrec.errors import ArtifactError, BackendError, DataError, MllmrecError, SettingsError
from mllmrec.models.chat import Chat
from mllmrec.models.chat_templates import PLAIN
from mllmrec.models.small_qwen3 import make_tokenizer
from mllmrec.settings.resources import ImportBackboneSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, sha256
from mllmrec.training.backbones import run_import

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
CUT = {"qwen3_5": "qwen35", "lfm2": "lfm2"}
LINEAR = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(["The capital of France is Paris", "Am\u00e9lie Toy Story"], 320, PRETOKENIZE_REGEX)


def random(kind: Any, config: Any, **options: Any) -> Any:
    """A model of an architecture with random weights, norms included."""
    model = kind(config(**(SIZES | options))).eval()
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=WIDE, generator=generator)
    return model


def qwen3(tokenizer: Any, **options: Any) -> Any:
    sizes = {"vocab_size": len(tokenizer), "head_dim": 16, "intermediate_size": 64, "tie_word_embeddings": True}
    return random(Qwen3ForCausalLM, Qwen3Config, **(sizes | options))


def gemma3(**options: Any) -> Any:
    sizes = {"vocab_size": 320, "num_hidden_layers": 6, "sliding_window": 8, "bos_token_id": 2}
    return random(Gemma3ForCausalLM, Gemma3TextConfig, **(sizes | options))


def imported(path: Path, **knobs: Any) -> Path:
    """The folder `made` beside a file."""
    settings = ImportBackboneSettings(file=str(path), **({"out": "made", "root": str(path.parent)} | knobs))
    run_import(settings, Workspace(path.parent))
    return path.parent / settings.out


def log_probabilities(model: Any) -> torch.Tensor:
    """Of 40 tokens in two rows, which is more than Gemma's layers slide over."""
    ids = torch.randint(6, 260, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: torch.Tensor = model.eval()(ids).logits.float().log_softmax(-1)
    return found


def difference(model: Any, folder: Path) -> float:
    stored = AutoModelForCausalLM.from_pretrained(folder)
    return float((log_probabilities(model) - log_probabilities(stored)).abs().max())


def test_a_qwen3_is_what_it_was(tokenizer: Any, tmp_path: Path) -> None:
    """Its heads and its base of positions aren't the library's defaults."""
    model = qwen3(tokenizer, rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    path = write_gguf(model, tmp_path / "small.gguf", tokenizer=tokenizer, chat_template=qwen3_chat_template)
    folder = imported(path)
    assert difference(model, folder) == 0
    stored = AutoTokenizer.from_pretrained(folder)
    assert stored.chat_template == qwen3_chat_template
    assert (stored.eos_token, stored.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)
    for text in (
        "The capital of Am\u00e9lie \U0001f3ac",
        "<|im_start|>user\n<think>\n\n</think>",
        "two  blanks\n\n1789",
    ):
        assert stored(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert Chat(stored).prompt_ids("Hi") == Chat(tokenizer).prompt_ids("Hi")
    assert sorted(each.name for each in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.inputs == {"file": sha256(path)}
    assert manifest.details["file"] == "small.gguf"
    assert manifest.details["quantisation"] == "F32"
    assert manifest.details["chat_template"] == "the file's own"
    assert manifest.details["num_parameters"] == model.num_parameters()
    assert manifest.outputs["model.safetensors"]["sha256"] == sha256(folder / "model.safetensors")


@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": 500.0}, LLAMA3])
def test_a_llama_is_what_it_was(tokenizer: Any, tmp_path: Path, rope: dict[str, Any]) -> None:
    """Its rows are in another order in a file, and the way that Llama 3 scales positions is a tensor there."""
    model = random(
        LlamaForCausalLM,
        LlamaConfig,
        vocab_size=len(tokenizer),
        rope_parameters=dict(rope),
        max_position_embeddings=16384,
    )
    plain = rope["rope_theta"] ** -(torch.arange(4) / 4)
    scaled = {"rope_freqs.weight": (plain / model.model.rotary_emb.inv_freq).numpy()} if rope is LLAMA3 else {}
    folder = imported(write_gguf(model, tmp_path / "small.gguf", tokenizer=tokenizer, tensors=scaled))
    assert difference(model, folder) < 1e-5
    parameters = AutoModelForCausalLM.from_pretrained(folder).config.rope_parameters
    assert parameters == pytest.approx(rope)


@pytest.mark.parametrize(("rope", "stated"), [(None, {}), (LINEAR, {"rope.scaling.type": "linear"})])
def test_a_gemma3_is_what_it_was(tmp_path: Path, rope: Any, stated: dict[str, Any]) -> None:
    """Norms are one more in a file; a beginning of text is written, and its turns are single tokens."""
    model = gemma3(**({"rope_parameters": rope} if rope else {}))
    stated = stated | ({"rope.scaling.factor": 8.0} if rope else {})
    folder = imported(write_gguf(model, tmp_path / "small.gguf", extra=stated))
    assert difference(model, folder) < 1e-6
    stored, tokens = AutoTokenizer.from_pretrained(folder), sentencepiece_tokens(320)
    assert stored.tokenize("The cap\u00e9<start_of_turn>") == [
        "The", "\u2581", "ca", "p", "\u00e9", "<start_of_turn>",
    ]  # fmt: skip
    assert stored("Th")["input_ids"] == [tokens.index("<bos>"), tokens.index("Th")]
    kiss = "\U0001f48b of is  this\n"
    assert stored.decode(stored(kiss, add_special_tokens=False)["input_ids"]) == kiss
    assert stored.chat_template == PLAIN
    assert stored.decode(Chat(stored).prompt_ids("Th")) == "<bos>Th\n\nAnswer:\n"


def hybrid(name: str) -> tuple[Any, Any]:
    """A Qwen3.5 or an LFM2 and a tokenizer that cuts words as theirs do."""
    known = make_tokenizer(
        ["The capital of France is Paris", "Am\u00e9lie Toy Story"], 320, GGUF_PRE_TOKENIZER_SPLITS[CUT[name]]
    )
    options: dict[str, Any] = {"vocab_size": len(known), "tie_word_embeddings": True}
    if name == "qwen3_5":
        rope = {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.25}
        options |= {"head_dim": 32, "rope_parameters": rope | {"mrope_section": [2, 1, 1], "mrope_interleaved": True}}
    else:
        options |= {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
    family, sizes = CONFIGS[name]
    config = getattr(transformers, f"{family}Config")(**(sizes | options))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=WIDE, generator=generator)
    return model, known


@pytest.mark.parametrize("name", ["qwen3_5", "lfm2"])
def test_recurrent_and_convolutional_models_are_what_they_were(tmp_path: Path, name: str) -> None:
    model, known = hybrid(name)
    folder = imported(write_gguf(model, tmp_path / "small.gguf", tokenizer=known))
    stored = AutoModelForCausalLM.from_pretrained(folder)
    assert type(stored) is type(model)
    weights = stored.state_dict()
    assert weights.keys() == model.state_dict().keys()
    for key, weight in model.state_dict().items():
        assert torch.allclose(weights[key], weight, atol=1e-6), key
    assert difference(model, folder) < 1e-4
    text = "The capital of Am\u00e9lie \U0001f3ac\n\n1789"
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == known(text)["input_ids"]


@pytest.mark.parametrize("name", ["qwen3_5", "lfm2"])
@pytest.mark.parametrize(
    ("extra", "tensors", "told"),
    [
        ({"rope.scaling.type": "yarn"}, {}, r"rope\.scaling\.type = 'yarn' is nothing that transformers reads"),
        ({}, {"blk.0.ffn_up.bias": 8}, r"it holds .* weights \(such as blk\.0\.ffn_up\.bias\)"),
        ({}, {"rope_freqs.weight": 4}, r"rope_freqs\.weight is nothing that transformers reads"),
    ],
)
def test_what_transformers_leaves_out_of_them_is_refused(
    tmp_path: Path, name: str, extra: dict[str, Any], tensors: dict[str, int], told: str
) -> None:
    model, known = hybrid(name)
    added = {key: torch.ones(count).numpy() for key, count in tensors.items()}
    path = write_gguf(model, tmp_path / "small.gguf", tokenizer=known, extra=extra, tensors=added)
    assert re.search(told, refusal(path, BackendError))


@pytest.mark.parametrize(("format", "name", "most"), [("Q8_0", "Q8_0", 0.3), ("F16", "F16", 0.03), ("Q4_0", "Q4_0", 4)])
def test_quantised_weights_are_unpacked_to_what_they_stand_for(
    tokenizer: Any, tmp_path: Path, format: str, name: str, most: float
) -> None:
    """The model that is imported differs from the first one by the rounding of its blocks and nothing else."""
    from gguf import dequantize, quantize

    kind, model = GGMLQuantizationType[format], qwen3(tokenizer)
    folder = imported(write_gguf(model, tmp_path / "small.gguf", tokenizer=tokenizer, format=kind))
    assert 0 < difference(model, folder) < most
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data = torch.tensor(dequantize(quantize(weight.detach().numpy(), kind), kind))
    assert difference(model, folder) == 0
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.details["quantisation"] == name


def test_half_the_size_is_rounded(tokenizer: Any, tmp_path: Path) -> None:
    model = qwen3(tokenizer)
    path = write_gguf(model, tmp_path / "small.gguf", tokenizer=tokenizer)
    folder = imported(path, dtype="bfloat16")
    stored = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    assert all(torch.equal(stored[name], weight.to(torch.bfloat16)) for name, weight in model.state_dict().items())
    with pytest.raises(ArtifactError, match=r"setting dtype was 'bfloat16' and is now 'float32'"):
        imported(path)


def test_a_finished_import_is_left_alone_and_another_file_refused(tokenizer: Any, tmp_path: Path) -> None:
    path = write_gguf(qwen3(tokenizer), tmp_path / "small.gguf", tokenizer=tokenizer)
    folder = imported(path)
    before = (folder / "manifest.json").read_bytes()
    moved = path.rename(tmp_path / "moved.gguf")
    imported(moved)
    assert (folder / "manifest.json").read_bytes() == before
    other = write_gguf(gemma3(), tmp_path / "other.gguf")
    with pytest.raises(ArtifactError, match=r"made was already made .* the input file has changed since.* --overwrite"):
        imported(other)
    assert (folder / "manifest.json").read_bytes() == before
    imported(other, overwrite=True)
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "gemma3_text"


def test_a_template_of_one_s_own_takes_the_place_of_the_file_s(tokenizer: Any, tmp_path: Path) -> None:
    path = write_gguf(qwen3(tokenizer), tmp_path / "small.gguf", tokenizer=tokenizer, chat_template=qwen3_chat_template)
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}")
    folder = imported(path, chat_template=str(own))
    assert (folder / "chat_template.jinja").read_text() == own.read_text()
    own.write_text(own.read_text().replace(": ", ":\n"))
    with pytest.raises(ArtifactError, match="the input chat_template has changed since"):
        imported(path, chat_template=str(own))
    assert AutoTokenizer.from_pretrained(imported(path, chat_template="plain", out="b")).chat_template == PLAIN


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "positions": (
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0},
        r"positions are scaled .*yarn: .*factor = 4",
    ),
    "unknown": ({"logit_scale": 0.5}, r"without loss: logit_scale = 0\.5 is nothing that this program knows"),
    "capping": ({"final_logit_softcapping": 30.0}, r"final_logit_softcapping = 30\.0 has no place in a Qwen3Config"),
    "embedding": ({"pooling_type": 3}, r"holds a model for embeddings .*Expected a causal language model"),
    "vision": ({"general.type": "mmproj"}, r"holds the part of a model that sees \(mmproj\)"),
    "parts": ({"split.count": 3}, r"part of a model in 3 files.*llama-gguf-split --merge"),
    "sizes": ({"feed_forward_length": 96}, r"can't be read by transformers .* other sizes than it states"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_folder_cannot_carry_is_refused(tokenizer: Any, tmp_path: Path, name: str) -> None:
    extra, told = REFUSED[name]
    model = qwen3(tokenizer)
    if name == "sizes":
        model.config.intermediate_size = extra.pop("feed_forward_length")
    assert re.search(
        told, refusal(write_gguf(model, tmp_path / "small.gguf", tokenizer=tokenizer, extra=extra), BackendError)
    )


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        ("blk.0.attn_q.bias", r"holds 34,344 weights \(such as blk\.0\.attn_q\.bias\).* has 34,336"),
        ("rope_factors_long.weight", r"weights \(such as rope_factors_long\.weight\)"),
        ("rope_freqs.weight", r"scales positions in another way than Llama 3 does"),
    ],
)
def test_a_tensor_without_a_place_is_refused(tokenizer: Any, tmp_path: Path, tensor: str, told: str) -> None:
    added = {tensor: torch.arange(1.0, 9.0).numpy()}
    assert re.search(
        told,
        refusal(write_gguf(qwen3(tokenizer), tmp_path / "s.gguf", tokenizer=tokenizer, tensors=added), BackendError),
    )


def test_a_tokenizer_that_would_cut_otherwise_is_refused(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gguf import GGUFWriter

    add = GGUFWriter.add_tokenizer_pre
    monkeypatch.setattr(GGUFWriter, "add_tokenizer_pre", lambda writer, _: add(writer, "poro-chat"))
    path = write_gguf(qwen3(tokenizer), tmp_path / "s.gguf", tokenizer=tokenizer)
    assert re.search("its tokenizer cuts words as 'poro-chat' does, which isn't known", refusal(path, BackendError))


@pytest.mark.parametrize("architecture", ["clip", "bert", "flux", "t5", "rwkv7"])
def test_other_architectures_are_refused(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    import gguf_writing

    real = gguf_writing.GGUFWriter
    monkeypatch.setattr(gguf_writing, "GGUFWriter", lambda path, _: real(path, architecture))
    told = "transformers .* rwkv7 is not supported" if architecture == "rwkv7" else f"architecture {architecture}"
    assert re.search(
        told, refusal(write_gguf(qwen3(tokenizer), tmp_path / "s.gguf", tokenizer=tokenizer), BackendError)
    )


def test_what_is_no_whole_file_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    path = write_gguf(qwen3(tokenizer), tmp_path / "small.gguf", tokenizer=tokenizer)
    content = path.read_bytes()
    for length in (5, 30, 700, 5_000, len(content) // 2, len(content) - 200):
        path.write_bytes(content[:length])
        assert re.search(r"isn't whole.*Download it again", refusal(path, DataError))
    path.write_bytes(b"PK\3\4" + content)
    assert re.search(r"is no GGUF file: it begins with b'PK", refusal(path, DataError))
    path.unlink()
    assert re.search("is not there. Expected a GGUF file", refusal(path, DataError))
    assert re.search("is a folder", refusal(tmp_path, DataError))


def test_weights_that_are_no_numbers_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    model = qwen3(tokenizer)
    model.model.norm.weight.data[3] = math.nan
    path = write_gguf(model, tmp_path / "small.gguf", tokenizer=tokenizer)
    assert re.search(r"damaged: model\.norm\.weight holds no numbers", refusal(path, DataError))


@pytest.mark.parametrize("kind", [99, 9])
def test_formats_that_cannot_be_unpacked_are_refused(tokenizer: Any, tmp_path: Path, kind: int) -> None:
    """99 is no format yet, and Q8_1 (9) is one that files never hold; blk.0.attn_q.weight is one of two tensors."""
    path = write_gguf(qwen3(tokenizer), tmp_path / "small.gguf", tokenizer=tokenizer)
    content, name = bytearray(path.read_bytes()), b"blk.0.attn_q.weight"
    at = content.index(name) + len(name) + 4 + 2 * 8
    content[at : at + 4] = kind.to_bytes(4, "little")
    path.write_bytes(content)
    assert re.search(r"in (a|the) format .*Expected one such as Q4_K_M, Q8_0 or F16", refusal(path, BackendError))


def test_the_extra_that_is_missing_is_named(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(qwen3(tokenizer), tmp_path / "small.gguf", tokenizer=tokenizer)
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert re.search(r"pip install -c requirements\.lock -e '\.\[gguf\]'", refusal(path, SettingsError))


def refusal(path: Path, error: type[MllmrecError]) -> str:
    """What is said of a file that isn't imported, in one paragraph; nothing of it is left behind."""
    root = path.parent / "workspace"
    with pytest.raises(error) as caught:
        imported(path, root=str(root))
    assert "\n" not in str(caught.value)
    assert not [each for each in root.rglob("*") if not each.name.endswith(".lock")]
    return str(caught.value)
