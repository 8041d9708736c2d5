"""The page in a real browser: nothing complains, is fetched or overflows, and tables sort by click and by key."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browsing, find_browser
from report_world import DATASET, make_report_world, picture_of

from mllmrec.evaluation.reporting.stage import run
from mllmrec.settings.evaluation import ReportSettings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="there is no Chromium on this machine"),
]

UNFOLD = "document.querySelectorAll('details').forEach(fold => fold.open = true)"
OVERFLOWING = """[...document.querySelectorAll('main *, header, nav, footer')].filter(element => {
  const box = element.getBoundingClientRect();
  return !element.closest('.scroll, .drawing') && box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map(element => element.outerHTML.slice(0, 80))"""
COLUMN = """(column => [...document.querySelector('#{} table').tBodies[0].rows]
  .map(row => row.cells[column].firstChild.textContent.trim()))({})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = make_report_world(tmp_path_factory.mktemp("report"))
    summary = run(ReportSettings(dataset=DATASET, root=str(workspace.root)), workspace, picture_of)
    assert summary.artifact is not None
    return summary.artifact


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", [375, 768, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_is_whole(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.told.clear()
    browser.requests.clear()
    browser.open(page, width=width, dark=dark)
    browser.run(UNFOLD)
    assert browser.told == []
    assert {url for url in browser.requests if not url.startswith("data:")} == {page.resolve().as_uri()}
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run(OVERFLOWING) == []
    assert browser.run("[...document.images].filter(image => !image.naturalWidth).length") == 0
    assert browser.run("document.images.length") > 100
    drawings = browser.run(
        "[...document.querySelectorAll('.drawing')].map(drawing => [drawing.getBoundingClientRect().height, "
        "drawing.querySelectorAll('path, use').length])"
    )
    assert len(drawings) > 8
    assert all(height > 80 and shapes > 5 for height, shapes in drawings)


def test_light_and_dark_have_enough_contrast(browser: Browser, page: Path) -> None:
    papers = []
    for dark in (False, True):
        browser.open(page, dark=dark)
        colours = browser.run(
            "(names => names.map(name => { document.body.style.outlineColor = `var(--${name})`;"
            "return getComputedStyle(document.body).outlineColor }))(['paper', 'ink', 'muted', 'accent', 'alarm'])"
        )
        paper, *inks = (luminance(colour) for colour in colours)
        papers.append(paper)
        assert all((max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) >= 4.5 for ink in inks)
    assert papers[0] > 0.9
    assert papers[1] < 0.05


def test_a_table_sorts_by_click_and_by_key(browser: Browser, page: Path) -> None:
    browser.open(page)
    ladder = browser.run("document.querySelector('[id^=ladder]').id")
    header = f"document.querySelectorAll('#{ladder} thead button')[1]"
    before = browser.run(COLUMN.format(ladder, 1))
    browser.run(f"{header}.click()")
    assert browser.run(COLUMN.format(ladder, 1)) == sorted(before, key=float, reverse=True)
    assert browser.run(f"{header}.closest('th').getAttribute('aria-sort')") == "descending"
    browser.run(f"{header}.focus()")
    for kind in ("rawKeyDown", "char", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
        )
    assert browser.run(COLUMN.format(ladder, 1)) == sorted(before, key=float)
    browser.run(f"document.querySelector('#{ladder} thead button').click()")
    names = browser.run(COLUMN.format(ladder, 0))
    assert names == sorted(names)
    assert browser.run(f"document.querySelector('#{ladder} tfoot th').textContent") == "chance"


def test_differences_sort_by_size_with_their_signs(browser: Browser, page: Path) -> None:
    browser.open(page)
    script = """(() => {
      const table = [...document.querySelectorAll('table')].find(each => each.tHead.textContent.includes('step'));
      table.tHead.querySelectorAll('button')[1].click();
      return [...table.tBodies[0].rows].map(row => row.cells[1].firstChild.textContent);
    })()"""
    values = [float(text.replace("−", "-")) for text in browser.run(script)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0


def test_paper_shows_what_is_folded(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page)
    folded = browser.run("document.querySelectorAll('details:not([open])').length")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('details:not([open])').length") == 0
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run("document.querySelectorAll('details:not([open])').length") == folded > 20
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` as WCAG defines it."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def copied(browser: Browser, key: str, name: str) -> str:
    """What the button of a table puts on the clipboard, which a page without a user may not write to."""
    browser.run("document.execCommand = () => { window.copied = document.activeElement.value; return true; }; 0")
    browser.run(
        f"[...document.querySelectorAll('#{key} .copies')][0].querySelectorAll('button')"
        f"[{['CSV', 'LaTeX'].index(name)}].click()"
    )
    return str(browser.run("window.copied"))


def test_a_table_is_copied_as_csv_and_latex(browser: Browser, page: Path) -> None:
    browser.open(page)
    section = browser.run("document.querySelector('[id^=ladder-]').id")
    shown = browser.run(
        f"[...document.querySelectorAll('#{section} table tr')].slice(0, 2).map(row => [...row.cells].map(cell => "
        "[cell.firstChild.textContent.trim(), (cell.querySelector('small') || cell).textContent.trim()]))"
    )
    [_, [(label, _), (value, interval), *_]] = shown
    rows = list(csv.reader(copied(browser, section, "CSV").splitlines()))
    assert rows[0][:3] == ["run", "HR@1/uni9", "HR@1/uni9 95 % interval"]
    assert rows[1][:3] == [label, value, interval]
    assert len({len(row) for row in rows}) == 1
    assert rows[-1][:2] == ["chance", "0.100"]
    latex = copied(browser, section, "LaTeX").splitlines()
    assert latex[0] == r"\begin{tabular}{lrrrrrrr}"
    assert latex[4].startswith(f"{label} & ")
    assert f"{{\\scriptsize {interval.replace('–', '--')}}}" in latex[4]
    assert latex[-4:-2] == [r"\midrule", latex[-3]]
    assert latex[-3].startswith("chance & 0.100 & ")
    assert latex[-2:] == [r"\bottomrule", r"\end{tabular}"]
