"""Settings of long stages: a key is never repeated."""

from __future__ import annotations

import pytest

from mllmrec import SettingsError
from mllmrec.settings.base import validated
from mllmrec.settings.texts import RefineSettings


def test_a_key_given_where_its_variable_is_named_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError) as told:
        validated(RefineSettings, {"dataset": "shop", "api_key_env": "sk-s3cret-0123"}, "refine")
    assert "not the key itself" in str(told.value)
    assert "s3cret" not in str(told.value)
