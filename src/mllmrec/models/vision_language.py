"""A teacher that sees: Qwen3-VL from a model folder, for captions and for chains of thought over images.

The library's Qwen3VLProcessor asks for torchvision because of its video half, which nothing here needs. What it does
for images is done here with its parts: the PIL image processor gives the patches, the tokenizer's chat template gives
the place of an image, and that place is widened to one token for each merged patch of the image:

    tokens of an image = grid frames * grid height * grid width / merge_size ** 2

The tensors are those of the library's processor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from mllmrec.errors import ArtifactError, BackendError
from mllmrec.models.base import Reply, Request
from mllmrec.models.chat import Chat
from mllmrec.models.chat_templates import MARKER
from mllmrec.models.huggingface import (
    choose_device,
    choose_dtype,
    num_parameters,
    portable,
    quieten,
    read_config,
    read_pretrained,
    read_weights,
    require_rows,
    resolve,
)
from mllmrec.models.writing import Inputs, Prompt, UnfitError, Writer
from mllmrec.progress import note
from mllmrec.settings.texts import TeacherSettings
from mllmrec.storage.workspace import Workspace

KINDS = ("qwen3_vl", "qwen3_vl_moe")
IMAGE_SETTINGS = ("preprocessor_config.json", "processor_config.json")


class VisionTeacher:
    """A [`Teacher`][mllmrec.models.base.Teacher] over Qwen3-VL.

    Raises ArtifactError when the folder is incomplete, SettingsError when the device isn't there, and BackendError
    when the model is of another kind.
    """

    def __init__(self, settings: TeacherSettings, workspace: Workspace) -> None:
        quieten()
        source = resolve(workspace, settings.model)
        config = read_config(source)
        require_sight(source, config.model_type)
        self.name = portable(workspace, source)
        self.sight = Sight(source, config, thinking=settings.thinking)
        require_rows(source, self.sight.chat, config)
        device = choose_device(settings.device)
        dtype = choose_dtype(settings.dtype, device)
        model = read_weights(AutoModelForImageTextToText, source, config, dtype=dtype)
        self.writer = Writer(
            model.to(device).eval(),
            self.sight.chat,
            batch=settings.batch,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
        )
        note(f"model: {source} ({num_parameters(model)} parameters, {dtype} on {device})")

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        return self.writer.answer(requests, self.sight.prompt)


def sees(workspace: Workspace, model: str) -> bool:
    """Whether a model takes pictures; only its configuration is read."""
    return read_pretrained(AutoConfig, resolve(workspace, model)).model_type in KINDS


def require_sight(source: str, kind: str) -> None:
    if kind not in KINDS:
        raise BackendError(
            f"{source} is a {kind} model and can't be shown pictures here. Expected a Qwen3-VL, such as "
            "Qwen/Qwen3-VL-8B-Instruct; fetch it with `mllmrec fetch backbone`, ask a server with "
            "--backend endpoint, or have `pseudo-cot` written from captions with --images off."
        )


class Sight:
    """Turns requests with pictures into prompts of one model, without its weights."""

    def __init__(self, source: str, config: Any, *, thinking: bool = False) -> None:
        self.chat = Chat(read_pretrained(AutoTokenizer, source), thinking=thinking)
        self.images = _image_processor(source)
        _verify_patches(source, self.images, config.vision_config)
        self.image_token: str = self.chat.tokenizer.convert_ids_to_tokens(config.image_token_id)
        self.placeholder = self._image_placeholder()
        self.frame = self.chat.count_control(self.placeholder) - 1

    def prompt(self, request: Request) -> Prompt:
        """The request as tokens and patches; text that spells control tokens is made plain first.

        Raises UnfitError: picture_unfit for a shape that the model can't take (more than 200 times as long as wide),
        control_token for text that can't be made plain.
        """
        beside, lengths = self._look(request)
        widths = iter(lengths)
        shown = "".join(
            self.chat.harmless(part)
            if isinstance(part, str)
            else self.placeholder.replace(self.image_token, self.image_token * next(widths))
            for part in request.parts()
        )
        placed = sum(lengths) + len(lengths) * self.frame
        try:
            ids = self.chat.prompt_ids(shown, placed)
        except BackendError as error:
            raise UnfitError("control_token") from error
        return Prompt(key=request.key, ids=ids, beside=beside)

    def _look(self, request: Request) -> tuple[Inputs, list[int]]:
        """The patches of the pictures, and how many tokens each takes."""
        if not request.pictures:
            return {}, []
        try:
            # The axis of colours is named, because a picture three pixels high would be taken for one of three colours.
            seen = self.images(
                images=[picture.rgb for picture in request.pictures],
                input_data_format="channels_last",
                return_tensors="pt",
            )
        except ValueError as error:
            raise UnfitError("picture_unfit") from error
        lengths = seen["image_grid_thw"].prod(dim=1) // self.images.merge_size**2
        return dict(seen), lengths.tolist()

    def _image_placeholder(self) -> str:
        """What the chat template writes for an image. Raises BackendError when it writes none."""
        rendered = self.chat.render([{"type": "image"}, {"type": "text", "text": MARKER}])
        before = self.chat.prompt(MARKER).partition(MARKER)[0]
        placeholder: str = rendered.partition(MARKER)[0].removeprefix(before)
        if rendered != self.chat.prompt(placeholder + MARKER) or placeholder.count(self.image_token) != 1:
            raise BackendError(
                f"The chat template of {self.chat.tokenizer.name_or_path} has no place for an image. Expected that of "
                "Qwen3-VL; add its chat_template.jinja to the folder."
            )
        return placeholder


def _image_processor(source: str) -> Any:
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in IMAGE_SETTINGS):
        raise ArtifactError(
            f"{source} has no image processor: {IMAGE_SETTINGS[0]} is missing. Fetch the model again with "
            "`mllmrec fetch backbone`."
        )
    return read_pretrained(AutoImageProcessor, source, backend="pil")


def _verify_patches(source: str, images: Any, vision: Any) -> None:
    cut = (images.patch_size, images.temporal_patch_size, images.merge_size)
    expected = (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
    if cut != expected:
        raise BackendError(
            f"The image processor of {source} cuts images otherwise than its model reads them: (patch, frames, merge) "
            f"is {cut}, and {expected} was expected. Fetch the model again with `mllmrec fetch backbone`."
        )
