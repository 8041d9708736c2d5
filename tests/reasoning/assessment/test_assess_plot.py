"""The picture: every panel tells what the verdicts say, whatever is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from mllmrec.reasoning.assessment import plots
from mllmrec.reasoning.assessment.verdicts import Assessment, KeepRule, Parts, decide

CHOICE = KeepRule(0.5, None, 42)


def outcome(count: int, *, lifted: bool = True) -> Assessment:
    """Every tenth trace leaks; the others have lifts on both sides of zero."""
    parts = {
        str(at): Parts(
            modality=1 - at / (2 * count),
            modality_margin=1.0,
            lift=(at - count / 2) / count if lifted and at % 10 else None,
            lift_error=0.1 if lifted else None,
            steps=1.0,
            length=1.0,
            reason=None if at % 10 else "names the target's title",
        )
        for at in range(count)
    }
    return Assessment(parts=parts, verdicts=decide(parts, CHOICE))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Figure]:
    """The figure of each file that is saved."""
    figures: dict[str, Figure] = {}
    save = Figure.savefig

    def saved(figure: Figure, *arguments: object, **options: object) -> None:
        figures["last"] = figure
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    return figures


def texts(figure: Figure, panel: int) -> set[str]:
    axes = figure.axes[panel]
    ticks = {label.get_text() for label in axes.get_yticklabels()}
    return {text.get_text() for text in axes.texts} | {axes.get_title("left")} | ticks


def test_four_panels_with_figures(drawn: dict[str, Figure], tmp_path: Path) -> None:
    path = tmp_path / "result" / "assessed.png"
    plots.draw_assessment(outcome(200), path, "shop")
    assert path.read_bytes().startswith(b"\x89PNG")
    figure = drawn["last"]
    assert {"kept", "less trusted", "names the target's title", "90  (45.0%)", "20  (10.0%)"} <= texts(figure, 0)
    assert "Modality consistency" in texts(figure, 1)
    assert "Prediction consistency" in texts(figure, 2)
    assert {"kept", "less trusted"} <= texts(figure, 3)
    assert "rejected" not in texts(figure, 3), "they have no confidence"
    heights = sum(patch.get_height() for patch in figure.axes[3].patches)
    assert heights == 180


def test_without_a_scorer_length_is_shown(drawn: dict[str, Figure], tmp_path: Path) -> None:
    plots.draw_assessment(outcome(40, lifted=False), tmp_path / "a.png", "shop")
    assert "Length" in texts(drawn["last"], 2)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_traces_are_drawn_too(drawn: dict[str, Figure], tmp_path: Path, count: int) -> None:
    plots.draw_assessment(outcome(count), tmp_path / "a.png", "shop")
    assert len(drawn["last"].axes) == 4
