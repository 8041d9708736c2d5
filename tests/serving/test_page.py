"""The page of `mllmrec serve` as files: what it may not hold under its policy, and that its parts fit together."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
STATIC = Path(str(files("mllmrec.serving").joinpath("static")))
FILES = sorted(path for path in STATIC.iterdir() if path.is_file())
MODULES = [path for path in FILES if path.suffix == ".js"]
SVG_NAMESPACE = "http://www.w3.org/2000/svg"


class Tags(HTMLParser):
    """The elements of a page with their attributes, and the text that stands in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.inline: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.fixture(scope="module")
def page() -> Tags:
    return Tags((STATIC / "index.html").read_text())


def test_nothing_stands_inline_that_the_policy_forbids(page: Tags) -> None:
    assert page.inline == []
    for tag, attributes in page.tags:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")], (tag, attributes)


def test_every_file_that_the_page_names_is_there(page: Tags) -> None:
    named = [own.get("src") or own.get("href", "") for tag, own in page.tags if tag in ("script", "link", "img")]
    assert len(named) >= 4
    for address in named:
        assert address.startswith("static/")
        assert (STATIC / address.removeprefix("static/")).is_file(), address


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_asked_of_others(path: Path) -> None:
    text = path.read_text().replace(SVG_NAMESPACE, "")
    assert not re.search(r"https?:|[\"'(]//|@import|@font-face|url\(", text)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_titles_can_only_become_text(path: Path) -> None:
    found = re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc|\beval\b"
        r"|new Function|localStorage|document\.cookie|setAttribute\(\"style",
        path.read_text(),
    )
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_imports_are_of_names_that_are_exported(path: Path) -> None:
    text = path.read_text()
    imports = re.findall(r"import\s+\{([^}]*)\}\s+from\s+\"([^\"]+)\"", text)
    assert len(imports) == len(re.findall(r"^import\b", text, re.M))
    for names, source in imports:
        assert source.startswith("./")
        other = (STATIC / source).read_text()
        for name in (own.strip() for own in names.split(",") if own.strip()):
            assert re.search(rf"export (?:async )?(?:function|const|class) {name}\b", other), (name, source)
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} isn't used"


def test_every_element_that_modules_look_for_is_in_the_page(page: Tags) -> None:
    ids = {own["id"] for _, own in page.tags if "id" in own}
    text = "".join(path.read_text() for path in MODULES)
    wanted = set(re.findall(r"getElementById\(\"([^\"]+)\"\)", text)) | set(
        re.findall(r"querySelector(?:All)?\(\"#([\w-]+)", text)
    )
    assert len(wanted) >= 5
    assert wanted <= ids


def test_every_region_and_field_has_a_name_for_who_does_not_see_it(page: Tags) -> None:
    for tag, attributes in page.tags:
        if tag in ("nav", "main", "section"):
            assert attributes.get("aria-label"), tag
    labels = {own["for"] for tag, own in page.tags if tag == "label"}
    assert {own["id"] for tag, own in page.tags if tag in ("input", "select")} <= labels
    status = next(own for _, own in page.tags if own.get("id") == "status")
    assert (status["role"], status["aria-live"]) == ("status", "polite")
    text = "".join(path.read_text() for path in MODULES)
    sections = re.findall(r"el\(\s*\"section[^\"]*\",\s*\{([^}]*)\}", text)
    assert len(sections) > 8
    assert all("aria-label" in attributes for attributes in sections)
    icons = re.findall(r"\"button\.icon\",\s*\{([^}]*)\}?", text)
    assert icons
    assert all("aria-label" in attributes for attributes in icons)
    assert len(re.findall(r"el\(\s*\"(?:input|select)\"", text)) == len(
        re.findall(r"el\(\"label[^\"]*\", \{ for", text)
    )


def test_every_custom_property_is_set_somewhere() -> None:
    styles = "".join(path.read_text() for path in FILES if path.suffix == ".css")
    modules = "".join(path.read_text() for path in MODULES)
    known = set(re.findall(r"--([\w-]+):", styles)) | set(re.findall(r"vars: \{ (\w+):", modules))
    assert set(re.findall(r"var\(--([\w-]+)", styles)) <= known


def test_light_and_dark_have_enough_contrast() -> None:
    light, dark = re.findall(r":root \{(.*?)\}", (STATIC / "page.css").read_text(), re.S)
    papers = []
    for scheme in (light, dark):
        luminance = {name: luminance_of(code) for name, code in re.findall(r"--([\w-]+): #(\w{6});", scheme)}
        papers.append(luminance["paper"])
        for ink, ground in (
            *((ink, ground) for ink in ("ink", "muted", "accent") for ground in ("paper", "raised", "accent-soft")),
            ("on-accent", "accent"),
        ):
            high, low = sorted((luminance[ink], luminance[ground]), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)
    assert papers[0] > 0.9
    assert papers[1] < 0.05


def luminance_of(code: str) -> float:
    """The relative luminance of a colour by WCAG 2, from six hexadecimal digits."""
    shares = [int(code[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [own / 12.92 if own <= 0.04045 else ((own + 0.055) / 1.055) ** 2.4 for own in shares]
    return sum(weight * own for weight, own in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_wheel_holds_every_file() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["mllmrec"]
    for path in FILES:
        assert any(fnmatch(f"serving/static/{path.name}", pattern) for pattern in patterns), path.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 250


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node on this machine")
def test_figures_are_written_as_they_are_read(tmp_path: Path) -> None:
    for path in MODULES:
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    script = (
        "import { ordinal, percent, signed } from './items.js';"
        "console.log(JSON.stringify([[1, 2, 3, 4, 11, 12, 13, 21, 111, 122].map(ordinal),"
        "[0, 0.00001, 0.0005, 0.41237, 0.99999, 1].map(percent), [1.234, -0.5, -0.004, null].map(signed)]))"
    )
    (tmp_path / "figures.js").write_text(script)
    told = subprocess.run(
        ["node", "figures.js"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    places, shares, effects = json.loads(told)
    assert places == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "111th", "122nd"]
    assert shares == ["0.0%", "<0.1%", "0.1%", "41.2%", ">99.9%", "100.0%"]
    assert effects == ["+1.23", "−0.50", "0.00", "–"]
