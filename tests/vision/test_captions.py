"""`mllmrec caption`: bad posters are records, missing ones are counted, nothing is lost, a second run does nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_server import faulty_server
from pictures import RED, encoded, flat, noisy, write_pictures
from PIL import Image

from mllmrec import ArtifactError, BackendError, Workspace
from mllmrec.data.item_files import read_captions
from mllmrec.models.base import Reply, Request
from mllmrec.records import Summary
from mllmrec.settings.texts import CaptionSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import partial, read_json
from mllmrec.vision.captions import item_of, run
from mllmrec.vision.pixels import describe

GOOD = {"1": noisy(1), "2": noisy(2), "3": noisy(3)}
TITLES = {item: f"Thing {item} (1999)" for item in "1234567"}
FILES = {f"{item}.png": encoded(picture) for item, picture in GOOD.items()}
BAD = {
    "4.jpg": b"<html>404</html>",
    "5.jpg": encoded(noisy(5, 192, 128), "JPEG")[:-200],
    "6.png": b"",
}
SENTENCE = "A quiet street lies under a pale sky."


def shop(root: Path, files: Mapping[str, bytes] = FILES, titles: Mapping[str, str] = TITLES) -> Workspace:
    return write_pictures(root, files, titles)


def caption(workspace: Workspace, teacher: Any = None, **knobs: Any) -> Summary:
    return run(CaptionSettings(dataset="shop", root=str(workspace.root), **knobs), workspace, teacher)


def captions(workspace: Workspace) -> dict[str, str]:
    return read_captions(workspace, "shop", "on")


def manifest(workspace: Workspace) -> Manifest:
    found = Manifest.read(workspace.dataset("shop").captions)
    assert found is not None
    return found


def failures(workspace: Workspace) -> dict[str, str]:
    return {item_of(key): reason for key, reason in manifest(workspace).details["failures"].items()}


class Scripted:
    """A teacher that answers by a function of the item and the number of times it was asked, backwards in pairs."""

    name = "scripted"

    def __init__(self, answers: Any) -> None:
        self.answers, self.asked = answers, list[Request]()

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        requests = iter(requests)
        while pair := [request for _, request in zip(range(2), requests, strict=False)]:
            for request in reversed(pair):
                number = sum(other.key == request.key for other in self.asked)
                self.asked.append(request)
                text = self.answers(item_of(request.key), number)
                yield Reply(key=request.key, text=text, failure=None if text else "timeout", usage={"calls": 1})


# ---- pixels


def test_every_image_gets_a_sentence_in_the_order_of_the_catalogue(tmp_path: Path) -> None:
    workspace = shop(tmp_path, titles={"3": "Paper Moons", **{item: TITLES[item] for item in "124567"}})
    summary = caption(workspace)
    rows = read_json(workspace.dataset("shop").captions)
    assert list(rows) == ["3", "1", "2"]
    assert rows["3"] == {"title": "Paper Moons", "caption": describe(GOOD["3"])}
    assert summary.headline == "3 of 3 images have a caption in shop_captions.json."
    assert summary.tables[0].rows == (("captioned", "3"), ("without an image", "4"))
    assert "no model has looked at the images" in summary.tables[0].note
    assert manifest(workspace).details["writer"] == "pixels"
    assert captions(workspace) == {item: describe(GOOD[item]) for item in "312"}


def test_bad_images_are_recorded_with_their_reasons_and_the_rest_is_captioned(tmp_path: Path) -> None:
    workspace = shop(tmp_path, FILES | BAD)
    (workspace.dataset("shop").images / "7.png").symlink_to("/etc/hostname")
    summary = caption(workspace, max_failure_share=0.6)
    assert list(captions(workspace)) == ["1", "2", "3"]
    reasons = {"4": "not an image", "5": "truncated", "6": "empty file", "7": "outside images/"}
    assert failures(workspace) == reasons
    counts = manifest(workspace).counts
    assert (counts["in"], counts["done"], counts["failed"], counts["missing_images"]) == (7, 3, 4, 0)
    assert set(summary.tables[0].rows) == {
        ("captioned", "3"),
        ("without an image", "0"),
        *((f"failed: {reason}", "1") for reason in reasons.values()),
    }


def test_the_stage_fails_past_the_share_of_failures_and_keeps_what_is_done(tmp_path: Path) -> None:
    workspace = shop(tmp_path, FILES | {"4.jpg": b"<html>404</html>"})
    with pytest.raises(BackendError, match=r"1 of 4 records failed: not an image \(1\).*--max-failure-share"):
        caption(workspace, max_failure_share=0.24)
    assert not workspace.dataset("shop").captions.exists()
    before = partial(workspace.dataset("shop").captions).read_bytes()
    assert before.count(b'"row":') == 3
    caption(workspace, max_failure_share=0.25)
    assert list(captions(workspace)) == ["1", "2", "3"]
    assert not partial(workspace.dataset("shop").captions).exists()


def test_missing_images_are_no_failures(tmp_path: Path) -> None:
    workspace = shop(tmp_path, {"1.png": FILES["1.png"]})
    caption(workspace, max_failure_share=0)
    assert manifest(workspace).counts["missing_images"] == 6


def test_no_image_at_all_is_an_error_that_says_where_they_belong(tmp_path: Path) -> None:
    workspace = shop(tmp_path, {"99.png": FILES["1.png"]})
    with pytest.raises(ArtifactError, match=r"images holds no image of the catalogue. Expected files such as 1\.jpg"):
        caption(workspace)


def test_a_second_run_does_nothing_and_a_larger_limit_extends(tmp_path: Path) -> None:
    workspace, whole = shop(tmp_path / "a"), shop(tmp_path / "b")
    caption(workspace, limit=2)
    assert list(captions(workspace)) == ["1", "2"]
    caption(workspace, limit=3)
    caption(whole)
    assert workspace.dataset("shop").captions.read_bytes() == whole.dataset("shop").captions.read_bytes()
    written = workspace.dataset("shop").captions.stat().st_mtime_ns
    assert caption(workspace).headline == "shop_captions.json is there already; nothing to do."
    assert caption(workspace, limit=1).headline == "shop_captions.json is there already; nothing to do."
    assert workspace.dataset("shop").captions.stat().st_mtime_ns == written


def test_a_replaced_or_added_poster_is_captioned_and_the_others_keep_theirs(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    first = Scripted(lambda item, _: f"Sentence {item} of the first writer.")
    caption(workspace, first, backend="endpoint")
    (workspace.dataset("shop").images / "2.png").write_bytes(encoded(flat(RED)))
    (workspace.dataset("shop").images / "5.png").write_bytes(encoded(flat(RED)))
    second = Scripted(lambda item, _: f"Sentence {item} of the second writer.")
    caption(workspace, second, backend="endpoint")
    assert [item_of(request.key) for request in second.asked] == ["5", "2"]
    assert captions(workspace) == {
        "1": "Sentence 1 of the first writer.",
        "2": "Sentence 2 of the second writer.",
        "3": "Sentence 3 of the first writer.",
        "5": "Sentence 5 of the second writer.",
    }
    assert list(captions(workspace)) == ["1", "2", "3", "5"]
    assert "nothing to do" in caption(workspace, backend="endpoint").headline
    (workspace.dataset("shop").images / "3.png").unlink()
    (workspace.dataset("shop").images / "2.png").write_bytes(b"broken")
    caption(workspace, second, backend="endpoint", max_failure_share=0.5)
    assert list(captions(workspace)) == ["1", "5"]
    assert failures(workspace) == {"2": "not an image"}


def test_knobs_of_models_change_nothing_for_pixels(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    caption(workspace)
    assert "nothing to do" in caption(workspace, model="another", temperature=0.7, max_new_tokens=64, batch=2).headline
    with pytest.raises(ArtifactError, match="setting max_pixels was 1048576 and is now 4096"):
        caption(workspace, max_pixels=4096)


def test_a_title_made_of_the_captioners_words_is_gone_around(tmp_path: Path) -> None:
    titles = {"1": "Red (2001)", "2": "Image", "3": "Evenly Lit!"}
    workspace = shop(tmp_path, {f"{item}.png": encoded(flat(RED)) for item in titles}, titles)
    caption(workspace, max_failure_share=0.5)
    found = captions(workspace)
    assert found["1"].startswith("Scarlet (100%) makes a dark, warm, vivid image")
    assert found["3"] == "Red (100%) makes a dark, warm, vivid image of no contrast and no detail, symmetric."
    assert failures(workspace) == {"2": "names the title"}


def test_large_images_are_described_as_their_small_copies(tmp_path: Path) -> None:
    large = Image.fromarray(GOOD["1"]).resize((640, 960), Image.Resampling.NEAREST)
    workspace = shop(tmp_path, {"1.png": encoded(large), "2.png": FILES["1.png"]})
    caption(workspace)
    first, second = captions(workspace).values()
    assert first.split(",")[0] == second.split(",")[0]


def test_a_dry_run_of_pixels_writes_nothing(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    assert caption(workspace, dry_run=True).headline == "3 images would be captioned from their pixels, at no cost."
    assert not workspace.dataset("shop").captions.exists()


# ---- models


def test_a_model_sees_each_image_with_its_title_and_its_answers_are_cleaned(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    teacher = Scripted(lambda item, _number: f"Caption: {SENTENCE[:-1]} number {item}.\nIt is quiet there today.")
    caption(workspace, teacher, backend="endpoint", model="eyes")
    assert captions(workspace) == {item: f"{SENTENCE[:-1]} number {item}." for item in "123"}
    asked = {item_of(request.key): request for request in teacher.asked}
    assert "Thing 2 (1999)" in asked["2"].text
    assert [np.array_equal(asked[item].pictures[0].rgb, GOOD[item]) for item in "123"] == [True] * 3
    assert manifest(workspace).details["writer"] == "eyes"
    assert manifest(workspace).details["usage"]["calls"] == 3


def test_a_caption_with_its_title_is_asked_again_once_and_then_fails(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    named = "A poster says THING {} in large letters."
    answers = {"1": [named.format(1), SENTENCE], "2": [named.format(2)] * 2, "3": [SENTENCE]}
    teacher = Scripted(lambda item, number: answers[item][number])
    caption(workspace, teacher, backend="endpoint", max_failure_share=0.5)
    assert captions(workspace) == {"1": SENTENCE, "3": SENTENCE}
    assert failures(workspace) == {"2": "names the title"}
    again = [request.text for request in teacher.asked if "names the title" in request.text]
    assert [item_of(request.key) for request in teacher.asked].count("2") == 2
    assert len(again) == 2


def test_bad_images_are_never_sent_and_failed_answers_are_tried_again_on_request(tmp_path: Path) -> None:
    workspace = shop(tmp_path, FILES | BAD)
    teacher = Scripted(lambda item, number: None if item == "2" and number == 0 else SENTENCE)
    caption(workspace, teacher, backend="endpoint", max_failure_share=0.7)
    assert manifest(workspace).counts["failed_by_reason"] == {
        "timeout": 1,
        "not an image": 1,
        "truncated": 1,
        "empty file": 1,
    }
    assert {item_of(request.key) for request in teacher.asked} == {"1", "2", "3"}
    caption(workspace, teacher, backend="endpoint", max_failure_share=0.7, retry_failed=True)
    assert captions(workspace) == dict.fromkeys("123", SENTENCE)
    assert [item_of(request.key) for request in teacher.asked].count("2") == 2
    assert len(teacher.asked) == 4


def test_a_local_model_gets_the_largest_images_first(tmp_path: Path) -> None:
    sizes = {"1": (32, 32), "2": (200, 200), "3": (64, 64), "4": (100, 50), "5": (900, 900)}
    files = {f"{item}.png": encoded(noisy(1, *size)) for item, size in sizes.items()}
    workspace = shop(tmp_path, files | {"6.png": b"bad"})
    teacher = Scripted(lambda _item, _number: SENTENCE)
    caption(workspace, teacher, backend="huggingface", max_pixels=10_000, max_failure_share=0.5)
    pixels = [request.pictures[0].rgb.size // 3 for request in teacher.asked]
    assert sorted(pixels[:2]) == [10_000, 10_000]
    assert sorted(pixels[2:4]) == [64 * 64, 100 * 50]
    assert pixels[4] == 32 * 32
    assert list(captions(workspace)) == ["1", "2", "3", "4", "5"], "in the order of the catalogue all the same"


def test_a_dry_run_counts_calls_and_asks_nobody(tmp_path: Path) -> None:
    teacher = Scripted(lambda _item, _number: SENTENCE)
    workspace = shop(tmp_path, FILES | BAD)
    summary = caption(workspace, teacher, backend="endpoint", dry_run=True, price_in=1.0, price_out=2.0)
    assert dict(summary.tables[0].rows)["calls"] == "3"
    assert not teacher.asked
    assert not workspace.dataset("shop").captions.exists()


@pytest.mark.sockets
def test_captions_through_a_server(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    with faulty_server(lambda _text, number: "http_503" if number == 0 else "answer", lambda _text: SENTENCE) as server:
        knobs = {"base_url": server.address, "model": "eyes", "api_key_env": "NO_SUCH_KEY", "max_retries": 5}
        caption(workspace, backend="endpoint", **knobs)
        assert captions(workspace) == dict.fromkeys("123", SENTENCE)
        assert {url.partition(",")[0] for request in server.requests for url in request.pictures} == {
            "data:image/png;base64"
        }


def test_captions_by_a_small_qwen3_vl(tmp_path: Path, vision_model: Path) -> None:
    """It has not learnt to write captions: what it says is kept, or refused by a rule."""
    workspace = shop(tmp_path)
    knobs = {"model": str(vision_model), "max_new_tokens": 16, "batch": 2, "device": "cpu"}
    caption(workspace, backend="huggingface", max_failure_share=1, **knobs)
    counts = manifest(workspace).counts
    assert counts["done"] + counts["failed"] == 3
    assert manifest(workspace).details["usage"]["calls"] >= 3


# ---- real posters


@pytest.mark.real_data
def test_sixty_posters(real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "movielens"
    folder.mkdir(parents=True)
    (folder / "images").symlink_to(real_data / "movielens" / "images")
    titles = (real_data / "movielens" / "movielens_titles.csv").read_bytes()
    (folder / "movielens_titles.csv").write_bytes(titles)
    workspace = Workspace(tmp_path)
    run(CaptionSettings(dataset="movielens", root=str(tmp_path), limit=60), workspace)
    rows = read_json(workspace.dataset("movielens").captions)
    assert len({row["caption"] for row in rows.values()}) == 60
    assert json.dumps(rows).count("(100%)") == 0
    with Image.open(io.BytesIO((folder / "images" / "1.jpg").read_bytes())) as poster:
        assert rows["1"]["caption"] == describe(np.asarray(poster))
