"""What the long stages share: how far they go, what counts as a failure, and who writes the texts."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from mllmrec.settings.addresses import Address
from mllmrec.settings.base import DatasetSettings, knob


def variable_name(value: str) -> str:
    """The name of an environment variable; what isn't one may be a key, and isn't repeated."""
    if not re.fullmatch(r"[A-Za-z_]\w*", value):
        raise ValueError(
            "api_key_env is the name of an environment variable, such as OPENAI_API_KEY, and not the key itself"
        )
    return value


VariableName = Annotated[str, AfterValidator(variable_name)]


class LongStageSettings(DatasetSettings):
    """Settings of a stage that works through many records and goes on where it stopped."""

    limit: int | None = knob(None, "Work on the first N records; a larger N later extends.", operational=True, ge=1)
    retry_failed: bool = knob(False, "Try the failed records again.", operational=True)
    max_failure_share: float = knob(
        0.1, "Share of failed records beyond which the stage fails; what is done is kept.", operational=True, ge=0, le=1
    )


class TeacherSettings(LongStageSettings):
    """Settings of a stage whose texts a model writes, here or behind a server."""

    backend: str = knob("endpoint", "Who writes: huggingface (a local model) or endpoint (a server).")
    model: str = knob("", "Model folder under the root, any path, or hub id; for an endpoint, the name it serves.")
    base_url: Address = knob(
        "", "Address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1.", operational=True
    )
    api_key_env: VariableName = knob(
        "OPENAI_API_KEY", "Environment variable that holds the server's key.", operational=True
    )
    temperature: float = knob(0.0, "Sampling temperature of the writer; 0 is greedy.", ge=0)
    max_new_tokens: int = knob(256, "Longest text, in tokens, hidden reasoning included.", ge=8)
    thinking: bool = knob(
        False, "Let a local model that can reason do so before it answers; the reasoning itself is not kept."
    )
    max_inflight: int = knob(8, "Requests to the server at a time.", operational=True, ge=1)
    max_retries: int = knob(3, "Times a request is sent again after a busy or broken server.", operational=True, ge=0)
    timeout: float = knob(120.0, "Seconds to wait for one answer of the server.", operational=True, gt=0)
    batch: int = knob(8, "Texts written at a time by a local model.", operational=True, ge=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = knob("auto", "Where a local model computes.", operational=True)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "Number format of a local model; auto: bfloat16 on a GPU, float32 elsewhere."
    )
    price_in: float = knob(0.0, "Price of a million prompt tokens.", operational=True, ge=0)
    price_out: float = knob(0.0, "Price of a million written tokens.", operational=True, ge=0)
    budget: float | None = knob(
        None, "Ask no more when this is spent or about to be, in the prices' money.", operational=True, gt=0
    )
    dry_run: bool = knob(
        False, "Tell how many calls and about how many tokens it takes; spend nothing.", operational=True
    )
