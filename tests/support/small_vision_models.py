"""Teachers at toy size, saved as ordinary model folders: a Qwen3-VL that names colours, a Qwen3 that knows its lessons.

Both have learnt what to say by heart, so that a test knows what a right answer, an empty one, an endless one and one
behind hidden reasoning look like.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec.models.base import Picture

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 230), "white": (245, 245, 245)}
CONTROL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
WIDE = 0.2
THINK = ("<think>", "</think>")
ASK, SECOND, SILENCE, ENDLESS = "What colour is it?", "What colour is picture 2?", "Say nothing.", "Count on."
NUMBERS = " ".join(map(str, range(1, 14)))
LESSONS = {
    "Who are you?": "A small model.",
    "Name two steps.": "Step 1: amber.\nStep 2: brass.",
    "Think first.": "<think>\nHidden words.\n</think>\n\nThe visible answer.",
    "Think alone.": "<think>\nHidden words.",
    SILENCE: "",
    ENDLESS: NUMBERS,
}
"""What the small text model answers."""
Lesson = tuple[list[int], list[int], dict[str, Any]]


def rgb(colour: str, height: int = 48, width: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """A picture in one colour with some noise."""
    noise = np.random.default_rng(seed).integers(-20, 20, size=(height, width, 3))
    return np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)


def picture(colour: str, height: int = 48, width: int = 32, seed: int = 0) -> Picture:
    return picture_of(rgb(colour, height, width, seed))


def picture_of(array: NDArray[np.uint8]) -> Picture:
    """An image with its PNG bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return Picture(rgb=array, encoded=buffer.getvalue(), media_type="image/png")


def make_vision_model(folder: Path) -> Path:
    """Write a Qwen3-VL of 32 dimensions that tells the colour of a picture."""
    import torch

    tokenizer = make_tokenizer(
        CONTROL, "qwen3_vl_chat_template", [f"{ASK} {SECOND} Picture 1: The picture is {COLOURS}", *LESSONS]
    )
    processor = image_processor()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make_vision_architecture(tokenizer)
        learn(model, tokenizer, lambda rng: _vision_lesson(rng, tokenizer, processor), steps=120)
    processor.save_pretrained(folder)
    return save(model, tokenizer, folder)


def make_text_model(folder: Path) -> Path:
    """Write a Qwen3 of 32 dimensions that has learnt LESSONS by heart."""
    import torch
    from small_models import random_model

    tokenizer = make_tokenizer(CONTROL + THINK, "qwen3_chat_template", [*LESSONS, *LESSONS.values()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = random_model(vocab_size=len(tokenizer), initializer_range=WIDE, max_position_embeddings=2048)
        learn(model, tokenizer, lambda rng: _text_lesson(rng, tokenizer), steps=80)
    return save(model, tokenizer, folder)


def save(model: Any, tokenizer: Any, folder: Path) -> Path:
    """A folder as hubs have them: with sampling settings, which a greedy writer leaves aside, and two end tokens."""
    from transformers import GenerationConfig

    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.5, eos_token_id=ends
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(control: tuple[str, ...], template: str, texts: list[str]) -> Any:
    """Byte-level BPE trained on `texts`, with control tokens and one of Qwen3's chat templates."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from trl import chat_template_utils

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(control), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["user\nassistant\n", *texts] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=getattr(chat_template_utils, template),
        clean_up_tokenization_spaces=False,
    )


def image_processor() -> Any:
    """Qwen3-VL's own image processing, with its bounds on pixels made small."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": 32 * 32, "longest_edge": 160 * 160},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def make_vision_architecture(tokenizer: Any, family: str = "Qwen3VL", **text: Any) -> Any:
    """The real architecture, two layers of language and two of vision, with wide random weights."""
    import torch
    import transformers

    ids = tokenizer.convert_tokens_to_ids
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 16,
        "out_hidden_size": 32,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    config = getattr(transformers, f"{family}Config")(
        text_config=sizes | text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    for name, weights in model.named_parameters():
        if weights.dim() > 1 and "norm" not in name:
            torch.nn.init.normal_(weights, std=WIDE)
    return model


def learn(model: Any, tokenizer: Any, lesson: Callable[[random.Random], Lesson], steps: int) -> None:
    """Train every weight on batches of eight lessons (prompt, answer, pixels)."""
    import torch

    # A second thread only waits for the first one at this size, and on a busy machine for very long.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters())
    model.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 8e-3 * (1 - step / steps)
        rows = [lesson(rng) for _ in range(8)]
        width = max(len(prompt) + len(answer) for prompt, answer, _ in rows)
        padding = [width - len(prompt) - len(answer) for prompt, answer, _ in rows]
        ids = torch.tensor([[*row[0], *row[1], *[0] * pad] for row, pad in zip(rows, padding, strict=True)])
        labels = [[*[-100] * len(row[0]), *row[1], *[-100] * pad] for row, pad in zip(rows, padding, strict=True)]
        mask = torch.tensor([[1] * (width - pad) + [0] * pad for pad in padding])
        pixels = {name: torch.cat([row[2][name] for row in rows]) for name in rows[0][2]}
        if pixels:
            pixels["mm_token_type_ids"] = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
        loss = model(input_ids=ids, attention_mask=mask, labels=torch.tensor(labels), **pixels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    torch.set_num_threads(threads)


def _vision_lesson(rng: random.Random, tokenizer: Any, processor: Any) -> Lesson:
    """One or two pictures with a question about them, or a question that isn't about them."""
    colours = rng.choices(list(COLOURS), k=rng.choice((1, 2)))
    asked, answer = ASK if len(colours) == 1 else SECOND, f"The picture is {colours[-1]}."
    if rng.random() < 0.25:
        asked, answer = rng.choice(((SILENCE, ""), (ENDLESS, NUMBERS)))
    arrays = [
        rgb(colour, rng.choice((32, 48, 64)), rng.choice((32, 48, 64)), rng.randrange(10**6)) for colour in colours
    ]
    pixels = dict(processor(images=arrays, return_tensors="pt"))
    counts = [int(grid.prod()) // 4 for grid in pixels["image_grid_thw"]]
    shown = [f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>" for count in counts]
    if len(shown) > 1:
        shown = [f"Picture {number}: {place}" for number, place in enumerate(shown, 1)]
    return *_turn(tokenizer, "".join(shown) + asked, "", answer), pixels


def _text_lesson(rng: random.Random, tokenizer: Any) -> Lesson:
    asked, answer = rng.choice(list(LESSONS.items()))
    skipped = "" if answer.startswith("<think>") else "<think>\n\n</think>\n\n"
    return *_turn(tokenizer, asked, skipped, answer), {}


def _turn(tokenizer: Any, asked: str, opening: str, answer: str) -> tuple[list[int], list[int]]:
    prompt = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{opening}"
    return tokenizer(prompt)["input_ids"], tokenizer(answer + "<|im_end|>")["input_ids"]
