"""GGUF files: what they say of themselves, and their model and tokenizer as transformers reads them, whole.

transformers unpacks the weights and builds the tokenizer. What it doesn't read of a file it leaves out without a word:
a scaling of positions, a layer's biases, the size of an attention head. So every statement that a file makes about its
model has to be one that is known here, and is carried into the configuration; every tensor has to have its place in the
model, and every place a tensor. A file that says more is refused.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mllmrec.errors import BackendError, DataError, SettingsError, install_command

MAGIC, LONGEST = b"GGUF", 64
ADVICE = "Choose another file, or fetch the model itself with `mllmrec fetch backbone`."
OTHER_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("clip", "mmproj"), "the part of a model that sees (mmproj)"),
    **dict.fromkeys(("t5", "t5encoder", "umt5"), "an encoder"),
    **dict.fromkeys(
        ("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert"),
        "an encoder for embeddings",
    ),
    **dict.fromkeys(("gemma-embedding", "llama-embed"), "an encoder for embeddings"),
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), "a diffusion model of texts"),
    **dict.fromkeys(
        ("flux", "sd1", "sd3", "sdxl", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan", "lumina2", "qwen_image"),
        "a diffusion model of images",
    ),
    "adapter": "an adapter",
}
"""What files hold that hold no causal language model, by their `general.type` or architecture."""
STATED: Mapping[str, tuple[str, ...]] = {
    "context_length": ("max_position_embeddings", "n_positions", "n_ctx"),
    "block_count": ("num_hidden_layers",),
    "embedding_length": ("hidden_size",),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "vocab_size": ("vocab_size",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_epsilon"),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
}
"""What a file states under its architecture's name, and what configurations call it."""
POSITIONS = ("attention.key_length", "attention.value_length", "rope.dimension_count", "rope.freq_base")
FACTORS = "rope_freqs.weight"
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""How Llama 3.1 and later scale positions, besides a factor; files hold what comes of it for each frequency."""
READ_OF_ALL = (
    *("context_length", "block_count", "embedding_length", "feed_forward_length", "vocab_size", "rope.freq_base"),
    *("attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon"),
)
READ_OF_QWEN35 = (
    *READ_OF_ALL,
    *("attention.key_length", "full_attention_interval", "nextn_predict_layers"),
    *("rope.dimension_count", "rope.dimension_sections"),
    *("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size"),
)
EXPERTS = ("expert_count", "expert_used_count", "expert_feed_forward_length", "expert_shared_feed_forward_length")
READ_ALONE: Mapping[str, tuple[str, ...]] = {
    "qwen35": READ_OF_QWEN35,
    "qwen35moe": (*READ_OF_QWEN35, *EXPERTS),
    "lfm2": (*READ_OF_ALL, "shortconv.l_cache"),
}
"""Architectures of which transformers makes the whole configuration by itself, and the statements that it reads."""
SCALED_BY_SIZE = {"gemma2": 46, "gemma3": 62}
"""Layers of the one size (27B) whose attention is scaled in a way that no statement tells."""
SPLITS = ("gpt-2",)
"""How byte-level tokenizers cut words by default."""
PROBES = (
    "The capital of France is Paris (1789), isn't it?",
    "Amélie: naïve façade – 千と千尋 🎬👨‍👩‍👧",
    "two  spaces,\n\nlines\tand [ITEM_1234] Toy Story",
)
"""Texts that a tokenizer has to give back as they were."""


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """What a GGUF file says: its short statements, and of each tensor the number of elements and their format.

    `position_factors` divide the rotary frequencies, where the file holds such.
    """

    path: Path
    statements: Mapping[str, Any]
    elements: Mapping[str, int]
    formats: Mapping[str, str]
    position_factors: tuple[float, ...] = ()

    @classmethod
    def read(cls, path: Path) -> GgufFile:
        """Read what stands before the weights, and check that all of them are there.

        Raises SettingsError where the extra `gguf` isn't installed, DataError for a file that is no GGUF file or isn't
        whole, BackendError for one that holds something else than a causal language model, or holds it in a format that
        can't be unpacked.
        """
        require_gguf_file(path)
        from gguf import GGUFReader, dequantize

        try:
            reader = GGUFReader(path)
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise _unreadable(path, error) from error
        # A long list, such as the vocabulary, is the library's to read.
        statements = {name: field.contents() for name, field in reader.fields.items() if len(field.data) <= LONGEST}
        factors = next((tensor.data for tensor in reader.tensors if tensor.name == FACTORS), ())
        file = cls(
            path=path,
            statements=statements,
            elements={tensor.name: int(tensor.n_elements) for tensor in reader.tensors if tensor.name != FACTORS},
            position_factors=tuple(map(float, factors)),
            formats={tensor.name: tensor.tensor_type.name for tensor in reader.tensors},
        )
        file.require_language_model()
        for tensor in {tensor.tensor_type: tensor for tensor in reader.tensors}.values():
            try:
                dequantize(tensor.data[:1], tensor.tensor_type)
            except RuntimeError as error:
                raise BackendError(
                    f"{path} holds weights in the format {tensor.tensor_type.name} (such as {tensor.name}), which gguf "
                    f"{version('gguf')} can't unpack. Expected one such as Q4_K_M, Q8_0 or F16. {ADVICE}"
                ) from error
        return file

    @property
    def architecture(self) -> str:
        return str(self.statements.get("general.architecture", ""))

    @property
    def quantisation(self) -> str:
        """The mix of formats by its usual name, such as Q4_K_M; the most frequent format where it has none."""
        from gguf import LlamaFileType

        number = self.statements.get("general.file_type")
        known: dict[Any, str] = {
            kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType
        }
        most = Counter(self.formats.values()).most_common(1)
        return known.get(number, most[0][0] if most else "nothing")

    def own_statements(self) -> dict[str, Any]:
        """The statements about the model, by their names without the architecture's."""
        prefix = f"{self.architecture}."
        return {name.removeprefix(prefix): value for name, value in self.statements.items() if name.startswith(prefix)}

    def require_language_model(self) -> None:
        kinds = (str(self.statements.get("general.type", "")), self.architecture)
        held = next((OTHER_KINDS[kind] for kind in kinds if kind in OTHER_KINDS), "")
        if not held and self.own_statements().get("pooling_type"):
            held = "a model for embeddings"
        if held or not self.elements or not self.architecture:
            raise BackendError(
                f"{self.path} holds {held or 'no model'} (architecture {self.architecture or 'not stated'}). Expected "
                f"a causal language model, such as a Llama, Qwen3 or Gemma 3. {ADVICE}"
            )
        if int(self.statements.get("split.count", 1)) > 1:
            raise BackendError(
                f"{self.path} is part of a model in {self.statements['split.count']} files. Expected one file: put "
                "them together with `llama-gguf-split --merge` of llama.cpp first."
            )


def require_gguf_file(path: Path) -> None:
    """Raise DataError for what is no GGUF file, and SettingsError where the package that reads them is missing."""
    if not path.is_file():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'not there'}. Expected a GGUF file.")
    with path.open("rb") as file:
        begins = file.read(len(MAGIC))
    if begins != MAGIC:
        raise DataError(
            f"{path} is no GGUF file: it begins with {begins!r} and not with {MAGIC!r}. Name the .gguf file itself; a "
            "folder with safetensors is used as it is, by --backbone FOLDER."
        )
    if importlib.util.find_spec("gguf") is None:
        raise SettingsError(f"Reading GGUF files needs the package gguf. Install it: {install_command('gguf')}.")


def read_model(file: GgufFile, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model of a file with its weights unpacked, and its tokenizer.

    Raises BackendError where transformers can't read one of them, or wouldn't read all that the file says.
    """
    with _alone(file) as source:
        config = _read(file, AutoConfig, source)
        if file.architecture in READ_ALONE:
            _require_read(file, config)
        else:
            _carry_statements(file, config)
        tokenizer = _read(file, AutoTokenizer, source)
        _verify_tokenizer(file, tokenizer)
        model, landed = _read(
            file,
            AutoModelForCausalLM,
            source,
            config=config,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    _verify_weights(file, model, sorted(landed["missing_keys"]))
    # It is an ordinary model from here on.
    model.hf_quantizer = None
    vars(model.config).pop("quantization_config", None)
    return model, tokenizer


def verify_saved_tokenizer(file: GgufFile, tokenizer: Any, folder: Path) -> None:
    """Refuse a tokenizer that reads texts in another way once it was stored and read again."""
    stored = AutoTokenizer.from_pretrained(folder)
    for text in PROBES:
        if stored(text)["input_ids"] != tokenizer(text)["input_ids"]:
            raise _lossy(file, f"its tokenizer reads {text!r} in another way once it is stored as a folder")


@contextmanager
def _alone(file: GgufFile) -> Iterator[str]:
    """A folder that holds the file and nothing else, since the library also reads what lies beside it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file.path.name).symlink_to(file.path.resolve())
        yield folder


def _read(file: GgufFile, kind: Any, source: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(source, gguf_file=file.path.name, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        if "mismatched" in first:
            first = "its tensors are of other sizes than it states"
        raise BackendError(
            f"{file.path} (architecture {file.architecture}, {file.quantisation}) can't be read by transformers "
            f"{version('transformers')}: {first}. {ADVICE}"
        ) from error


def _require_read(file: GgufFile, config: Any) -> None:
    """Refuse a statement that transformers leaves out, but for sizes of a head that are those of the configuration."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for name, value in file.own_statements().items():
        is_size = name in POSITIONS and name != "rope.freq_base"
        if name not in READ_ALONE[file.architecture] and not (is_size and value == head):
            raise _lossy(file, f"{name} = {value!r} is nothing that transformers reads of this architecture")
    if file.position_factors:
        raise _lossy(file, f"{FACTORS} is nothing that transformers reads of this architecture")


def _carry_statements(file: GgufFile, config: Any) -> None:
    """Put every statement about the model into its configuration. Raises BackendError for one that has no place."""
    stated = file.own_statements()
    for name, value in stated.items():
        if name in STATED:
            _set(file, config, name, value)
        elif name not in POSITIONS and not name.startswith("rope."):
            raise _lossy(file, f"{name} = {value!r} is nothing that this program knows")
    _carry_positions(file, config, stated)
    if getattr(config, "sliding_window", None) and "attention.sliding_window" not in stated:
        raise _lossy(file, f"it doesn't state how far attention reaches ({type(config).__name__} would guess)")
    if stated.get("block_count") == SCALED_BY_SIZE.get(file.architecture):
        raise _lossy(file, "the attention of a model of this size (27B) is scaled by a number that isn't stated")


def _set(file: GgufFile, config: Any, name: str, value: Any) -> None:
    place = next((place for place in STATED[name] if hasattr(config, place)), None)
    if place is None or isinstance(value, list):
        raise _lossy(file, f"{name} = {value!r} has no place in a {type(config).__name__}")
    setattr(config, place, value)


def _carry_positions(file: GgufFile, config: Any, stated: Mapping[str, Any]) -> None:
    """The size of a head and the rotary positions."""
    width = config.hidden_size // config.num_attention_heads
    head = stated.get("attention.key_length", stated.get("rope.dimension_count", width))
    if hasattr(config, "head_dim"):
        config.head_dim = head
    elif head != width:
        raise _lossy(file, f"a head of {head} dimensions has no place in a {type(config).__name__}")
    rope = {name.removeprefix("rope."): value for name, value in stated.items() if name.startswith("rope.")}
    parameters: Any = getattr(config, "rope_parameters", None) or {}
    full, sliding = (parameters.get(kind, parameters) for kind in ("full_attention", "sliding_attention"))
    turned = rope.pop("dimension_count", head)
    if stated.get("attention.value_length", head) != head or turned != head * full.get("partial_rotary_factor", 1.0):
        raise _lossy(file, f"of a head of {head} dimensions {turned} are turned, and values are of another size")
    if "freq_base" in rope and full:
        full["rope_theta"] = rope.pop("freq_base")
    if "freq_base_swa" in rope and sliding is not full:
        sliding["rope_theta"] = rope.pop("freq_base_swa")
    scaling = rope.pop("scaling.type", "none")
    if scaling == "linear" and full:
        full |= {"rope_type": "linear", "factor": rope.pop("scaling.factor")}
    if rope or scaling not in ("none", "linear"):
        told = ", ".join(f"rope.{name} = {value!r}" for name, value in rope.items())
        raise _lossy(file, f"positions are scaled in a way that isn't read ({scaling}: {told})")
    if file.position_factors:
        _carry_factors(file, config, full)


def _carry_factors(file: GgufFile, config: Any, parameters: dict[str, Any]) -> None:
    """Scale positions as Llama 3 does, where that gives the factors in the file."""
    factors = torch.tensor(file.position_factors)
    exponents = torch.arange(len(factors)) / len(factors)
    asked = parameters["rope_theta"] ** -exponents / factors
    parameters |= {"rope_type": "llama3", "factor": float(factors.max()), **LLAMA3}
    given = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0]
    if given.shape != asked.shape or not torch.allclose(given, asked, rtol=1e-4):
        raise _lossy(file, f"{FACTORS} scales positions in another way than Llama 3 does")


def _verify_tokenizer(file: GgufFile, tokenizer: Any) -> None:
    """Refuse a tokenizer that would cut texts, or begin them, in another way than the file says."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    said = {name.removeprefix("tokenizer.ggml."): value for name, value in file.statements.items()}
    cut = said.get("pre", "default")
    if said.get("model") == "gpt2" and cut not in (*SPLITS, *GGUF_PRE_TOKENIZER_SPLITS):
        raise _lossy(file, f"its tokenizer cuts words as {cut!r} does, which isn't known")
    if said.get("model") == "llama" and "add_space_prefix" in said:
        begins = tokenizer.tokenize("a")[0].startswith("\u2581")
        if begins != said["add_space_prefix"]:
            raise _lossy(file, f"add_space_prefix = {said['add_space_prefix']} isn't what its tokenizer does")
    for text in PROBES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.decode(ids) != text:
            raise _lossy(file, f"its tokenizer gives back {tokenizer.decode(ids)!r} for {text!r}")


def _verify_weights(file: GgufFile, model: Any, missing: list[str]) -> None:
    if missing:
        raise _lossy(file, f"{len(missing)} weights of a {type(model).__name__} are lacking (such as {missing[0]})")
    # transformers has no place for the block behind the layers that predicts several tokens at once.
    behind = f"blk.{model.config.get_text_config().num_hidden_layers}."
    held = sum(count for name, count in file.elements.items() if not name.startswith(behind))
    places = sum(math.prod(weight.shape) for weight in model.parameters())
    if held != places:
        odd = [name for name in file.elements if name.startswith("rope_")] or [
            name for name in file.elements if name.endswith(".bias") and not name.endswith("ssm_dt.bias")
        ]
        such = f" (such as {odd[0]})" if odd else ""
        raise _lossy(file, f"it holds {held:,} weights{such}, and a {type(model).__name__} of this size has {places:,}")
    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise DataError(f"{file.path} is damaged: {broken[0]} holds no numbers. Download it again.")


def _unreadable(path: Path, error: Exception) -> DataError | BackendError:
    if "GGMLQuantizationType" in str(error):
        return BackendError(
            f"{path} holds weights in a format that gguf {version('gguf')} doesn't know ({error}). Expected one such "
            f"as Q4_K_M, Q8_0 or F16. {ADVICE}"
        )
    return DataError(
        f"{path} ({path.stat().st_size:,} bytes) isn't whole: its tables or tensors pass its end, or it is damaged "
        f"({error}). Download it again."
    )


def _lossy(file: GgufFile, what: str) -> BackendError:
    return BackendError(
        f"{file.path} (architecture {file.architecture}) can't become a model folder without loss: {what}. Expected a "
        f"file of which everything can be carried over, since the model would be another one otherwise. {ADVICE}"
    )
