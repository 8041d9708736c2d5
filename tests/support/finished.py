"""Finished artifacts of every stage that keeps a working log, made from small worlds by models that are planted.

python tests/support/finished.py writes them to tests/fixtures/finished/, to be committed only where a release means to
change what its stages write.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from planted import Seen, condition_scorer
from shelves import DATASET as SHOP
from shelves import WINDOW as SHOP_WINDOW
from shelves import ScriptedTeacher, items, make_shop, steps_of
from small_models import DATASET as TOY
from small_models import WINDOW as TOY_WINDOW
from small_models import make_backbone, make_workspace

from mllmrec.data.sequences import Interactions
from mllmrec.evaluation.probing import stage as probing
from mllmrec.evaluation.ranking import stage as ranking
from mllmrec.models.base import Request
from mllmrec.reasoning.assessment import stage as assessment
from mllmrec.reasoning.writing import pseudo_cot, refine
from mllmrec.records import RankingExample
from mllmrec.settings.evaluation import EvaluateSettings, ProbeSettings
from mllmrec.settings.texts import AssessSettings, CaptionSettings, PseudoCotSettings, RefineSettings
from mllmrec.vision import captions

KEPT = Path(__file__).parents[1] / "fixtures" / "finished"
COLOURS = ("navy", "gold", "green", "brown", "white", "crimson")

_VARYING = (
    (
        re.compile(r'("\w*(?:second|finished_at|mtime_ns|seal|revision|sha256|bytes)\w*": ?)(?:"[^"]*"|[\w.+-]+)'),
        r"\1_",
    ),
    (re.compile(r'"packages": \{[^}]*\}'), '"packages": _'),
    (re.compile(r'"model": "[0-9a-f]{64}"'), '"model": _'),
)
"""What tells when, how fast, where or with which libraries something was made."""
_FRACTION = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")


def make_all(root: Path) -> dict[str, str]:
    """The text of every artifact by its path below `root`, without times."""
    made = [*_texts(root / "shop"), *_rankings(root / "toy")]
    return {path.relative_to(root).as_posix(): timeless(path.read_text(encoding="utf-8"), root) for path in made}


def timeless(text: str, root: Path) -> str:
    """`text` without what varies from start to start, fractions to nine digits."""
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    text = _FRACTION.sub(lambda match: f"{round(float(match[0]), 9)!r}", text)
    return text.replace(str(root), "ROOT")


def _texts(root: Path) -> list[Path]:
    """Captions of six pictures, drafts, traces of a teacher that breaks rules and fails, and their assessment."""
    from PIL import Image, ImageDraw

    workspace = make_shop(root, captioned=False)
    folder = workspace.dataset(SHOP).images
    folder.mkdir(parents=True)
    for item, colour in zip(items()[::10], COLOURS, strict=True):
        picture = Image.new("RGB", (48, 64), colour)
        ImageDraw.Draw(picture).rectangle((8, 12, 30, 40), fill="black")
        picture.save(folder / f"{item.item_id}.png")
    knobs: dict[str, Any] = {"dataset": SHOP, "root": str(root)}

    def write(request: Request) -> str | None:
        number = int(hashlib.sha256(request.key.encode()).hexdigest(), 16)
        if number % 11 == 0:
            return None
        return "Too short." if number % 3 == 0 and "could not be used" not in request.text else steps_of(request)

    captions.run(CaptionSettings(**knobs), workspace)
    pseudo_cot.run(PseudoCotSettings(**knobs, min_inter=SHOP_WINDOW), workspace)
    refining = RefineSettings(**knobs, backend="endpoint", model="m", max_failure_share=0.5)
    refine.run(refining, workspace, teacher=ScriptedTeacher(write))
    assessment.run(AssessSettings(**knobs), workspace)
    files = workspace.dataset(SHOP)
    artifacts = (files.captions, files.pseudo_cot, files.refined_cot, files.assessed_cot)
    return [entry for path in artifacts for entry in (path, manifest_beside(path))]


def manifest_beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.manifest.json")


def _rankings(root: Path) -> list[Path]:
    """Two chunks of users ranked by scores, two by answers, and probed."""
    workspace = make_workspace(root)
    make_backbone(workspace)
    knobs: dict[str, Any] = {"dataset": TOY, "root": str(root), "backbone": "tiny", "min_inter": TOY_WINDOW}
    with mock.patch.object(ranking, "chunk_ranker", _planted_ranker):
        runs = [
            ranking.run(EvaluateSettings(**knobs, limit=70, method=method, top_k="1,3"), workspace).artifact
            for method in ("score", "generate")
        ]
    catalogue = Interactions.load(workspace, TOY).catalogue
    with mock.patch.object(probing, "open_scorer", return_value=condition_scorer(_by_title, {}, catalogue)):
        asked = ProbeSettings(**knobs, limit=70, probes="shuffled,position,length", rotations=2, top_k="3")
        probes = probing.run(asked, workspace).artifact
    assert probes is not None
    own = [path for run in runs if run is not None for path in sorted(run.iterdir())]
    return [*own, probes, manifest_beside(probes), probes.with_name("probes.scores.jsonl")]


def _by_title(seen: Seen) -> list[float]:
    """The theme of the last item first, then what has the shorter title."""
    last = seen.history[-1].title.split()[0]
    return [10.0 * (line.title.split()[0] == last) - len(line.title) for line in seen.candidates]


def _planted_ranker(settings: EvaluateSettings, ranker: Any) -> Any:
    """Scores and answers by hash; every prompt is encoded, so that budgets are counted."""

    def number(example: RankingExample, item: str) -> int:
        return int(hashlib.sha256(f"{example.example_id} {item}".encode()).hexdigest()[:8], 16)

    def rank(examples: Sequence[RankingExample]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for example in examples:
            ranker.encoder.prompt_ids(example)
            numbers = [number(example, item) for item in example.candidates]
            if settings.method == "score":
                scores = [-(value % 400) / 100 for value in numbers]
                rows.append({"scores": scores, "tokens": [1 + value % 7 for value in numbers]})
            else:
                named = [item for item, value in zip(example.candidates, numbers, strict=True) if value % 5 == 0]
                rows.append({"answers": named[:3], "dropped": numbers[0] % 2})
        return rows

    return rank


if __name__ == "__main__":
    assert not sys.argv[1:], "no arguments are taken"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in make_all(Path(folder)).items():
            (KEPT / name).parent.mkdir(parents=True, exist_ok=True)
            (KEPT / name).write_text(text, encoding="utf-8")
