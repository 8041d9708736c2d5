"""Refusals as servers and gateways word them, and the setting that each is about."""

from __future__ import annotations

import pytest

from mllmrec.models.server.completions import refused_setting


@pytest.mark.parametrize(
    ("parameter", "message", "setting"),
    [
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "renamed"),
        (None, "litellm: OpenAIException - Unsupported parameter: 'max_tokens' is not supported", "renamed"),
        (
            "max_tokens",
            "max_tokens is too large: 5000. This model supports at most 4096 completion tokens",
            "max_tokens",
        ),
        (None, "max_tokens must be less than or equal to 8192", "max_tokens"),
        (None, "This model's maximum context length is 2048 tokens. However, you requested 4600 tokens", "context"),
        (None, "'max_tokens' or 'max_completion_tokens' is too large: 4096. maximum context length is 2048", "context"),
        (None, "the request exceeds the available context size. try increasing the context size", "context"),
        (None, "prompt is too long: 250000 tokens > 200000 maximum", "context"),
        ("temperature", "Only the default (1) value is supported.", "temperature"),
        (None, "Unsupported value: 'temperature' does not support 0.0 with this model.", "temperature"),
        (None, "m is not a multimodal model", "pictures"),
        (None, "messages must not be empty", None),
        ("model", "unknown model", None),
    ],
)
def test_each_wording_names_its_setting(parameter: str | None, message: str, setting: str | None) -> None:
    assert refused_setting(400, parameter, message, limit_name="max_tokens", pictures=True) == setting


def test_only_a_refusal_of_the_request_is_about_a_setting() -> None:
    for status in (401, 404, 429, 500):
        assert refused_setting(status, "temperature", "temperature", limit_name="max_tokens", pictures=True) is None


def test_the_other_name_is_tried_once() -> None:
    other = {"limit_name": "max_completion_tokens", "pictures": False}
    assert refused_setting(400, "max_completion_tokens", "not supported", **other) == "max_tokens"
    assert refused_setting(400, None, "m is not a multimodal model", **other) is None
