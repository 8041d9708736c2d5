"""Settings of `mllmrec fetch dataset`, `fetch backbone` and `fetch images`, and of `mllmrec doctor`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, StringConstraints, model_validator

from mllmrec.settings.base import Address, Names, StageSettings, knob
from mllmrec.settings.texts import LongStageSettings, VariableName

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)]


def _all_sha256(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if len(value) != 64 or set(value.lower()) - set("0123456789abcdef"):
            raise ValueError(f"sha256 = {value!r} is no checksum: expected 64 hexadecimal digits")
    return tuple(value.lower() for value in values)


class FetchDatasetSettings(StageSettings):
    """Download a public data set, check it and unpack it, ready for `mllmrec prepare`."""

    verb: ClassVar[str] = "fetch dataset"

    name: str | None = knob(
        None,
        "A known data set, such as movielens-1m; with --url, any name to keep the files under.",
        positional=True,
    )
    url: Address | None = knob(None, "Address of the file or archive (http or https), in place of a known data set.")
    sha256: Sha256 | None = knob(None, "Expected sha256 of the downloaded file, 64 hexadecimal digits.")
    raw: str | None = knob(None, "Folder that receives the files (default: raw/NAME under the root).", operational=True)
    retries: int = knob(4, "Times a broken download is taken up again.", operational=True, ge=0)
    max_gb: float = knob(50.0, "Refuse an archive that unpacks to more than this many GB.", operational=True, gt=0)

    @model_validator(mode="after")
    def _something_to_fetch(self) -> Self:
        if self.name is None and self.url is None:
            raise ValueError("name is required: a known data set, or any name together with --url")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url = {self.url!r}: expected an address that starts with http:// or https://")
        if self.url is not None and "@" in self.url.split("/")[2]:
            raise ValueError("url holds a user name or password, which would end up in the manifest; leave it out")
        return self


class FetchBackboneSettings(StageSettings):
    """Download a language model as an ordinary model folder under the root (safetensors only)."""

    verb: ClassVar[str] = "fetch backbone"

    id: str = knob(
        ..., "Model id at the hub, such as Qwen/Qwen3-4B; it is saved as the folder Qwen3-4B.", positional=True
    )
    from_: Literal["huggingface", "modelscope"] = knob("huggingface", "Hub to download from.")
    revision: str | None = knob(None, "Branch, tag or commit (default: the hub's main branch).")
    sha256: Annotated[Names, AfterValidator(_all_sha256)] = knob(
        (), "Expected sha256 of each weight file, in the order of their names, separated by commas."
    )


class ImportBackboneSettings(StageSettings):
    """Make an ordinary model folder of a GGUF file, its weights unpacked (extra `gguf`)."""

    verb: ClassVar[str] = "backbone import"

    file: str = knob(..., "GGUF file of a causal language model.", positional=True, operational=True)
    out: str = knob(..., "Folder under the root where the model goes.")
    dtype: Literal["float32", "bfloat16"] = knob(
        "float32", "Number format of the weights: as the file says them, or rounded to half the size."
    )
    chat_template: str = knob(
        "",
        "plain, or a file with a chat template (Jinja), in place of the file's own; a model without one gets the plain "
        "one.",
    )


class FetchImagesSettings(LongStageSettings):
    """Download the posters of a MovieLens dataset from TMDB into images/; those that are there stay."""

    verb: ClassVar[str] = "fetch images"

    from_: Literal["tmdb"] = knob("tmdb", "Where posters come from; its terms are shown first.")
    size: Literal["w92", "w154", "w185", "w342", "w500", "w780", "original"] = knob(
        "w342", "Width of the posters in pixels, as TMDB offers them."
    )
    links: str | None = knob(
        None,
        "links.csv (movieId,imdbId,tmdbId) of a MovieLens release whose movie ids are the dataset's: latest, 25m or "
        "32m, also for 1m; the ids of 100k are others. Default: data/NAME/links.csv, else tmdb_id in the titles file, "
        "else the one links.csv under raw/.",
        operational=True,
    )
    api_key_env: VariableName = knob(
        "TMDB_API_KEY", "Environment variable that holds your TMDB API key or read access token.", operational=True
    )
    api_url: Address = knob("https://api.themoviedb.org", "Address of the TMDB API.", operational=True)
    image_url: Address = knob("https://image.tmdb.org/t/p", "Address that images lie under.", operational=True)
    max_inflight: int = knob(4, "Requests at a time.", operational=True, ge=1, le=16)
    max_retries: int = knob(4, "Times a request is sent again after a busy or broken server.", operational=True, ge=0)
    timeout: float = knob(30.0, "Seconds to wait for one answer.", operational=True, gt=0)
    max_mb: float = knob(10.0, "Refuse an image larger than this many MB.", operational=True, gt=0)

    @model_validator(mode="after")
    def _addresses_without_secrets(self) -> Self:
        for name in ("api_url", "image_url"):
            address = getattr(self, name)
            if not address.startswith(("http://", "https://")) or {"@", "?"} & set(address):
                raise ValueError(f"{name} = {address!r}: expected http:// or https:// and no user, password or query")
        return self


class DoctorSettings(StageSettings):
    """Say what is here, what fits, and what is missing with the command that mends it."""

    verb: ClassVar[str] = "doctor"

    dataset: str | None = knob(None, "Look at this dataset alone (default: every folder under data/).")
    plan: str | None = knob(
        None, "Recipe, by path or shipped name: the memory of its stages on a GPU, or the time they take without one."
    )
    gpu: float | None = knob(None, "Memory of the GPU to plan for, in GiB (default: the largest one here).", gt=0)
