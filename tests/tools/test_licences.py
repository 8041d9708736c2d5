"""The list of licences, of the packages that are installed here and of metadata made for it."""

from __future__ import annotations

from importlib.metadata import Distribution
from pathlib import Path

import pytest

from licences import licence_of, licences


class Package(Distribution):
    """A package that is nothing but its metadata."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read_text(self, filename: str) -> str | None:
        return self.text if filename == "METADATA" else None

    def locate_file(self, path: object) -> Path:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        ("License-Expression: MIT\nLicense: whatever", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License\nLicense: BSD 3", "BSD License"),
        ("License: Apache 2.0", "Apache 2.0"),
        ("License: " + "Permission is hereby granted " * 9, "not named; see its licence file"),
        ("Summary: none", "not named; see its licence file"),
    ],
)
def test_the_licence_is_read_from_the_field_that_says_it_most_plainly(lines: str, licence: str) -> None:
    assert licence_of(Package(f"Metadata-Version: 2.4\nName: x\nVersion: 1\n{lines}\n")) == licence


def test_packages_of_packages_and_of_extras_are_in_the_list_and_developers_tools_are_not() -> None:
    found = licences()
    assert "BSD-3-Clause" in found["torch"]
    assert {"numpy", "sympy", "fastapi", "rectools", "tensorboard"} <= found.keys()
    assert not {"pytest", "ruff", "mllmrec-r1"} & found.keys()
