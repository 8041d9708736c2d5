"""The page in a real browser, asking a real server: it shows what the recommender says, whatever a title holds."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from browser import Browser, browsing, find_browser
from PIL import Image
from small_models import DATASET, WINDOW, copy_of

from mllmrec import Recommender
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.evaluation.ranking import stage as ranking
from mllmrec.records import RankingExample
from mllmrec.serving.app import make_app
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.serving import ServeSettings
from mllmrec.storage.workspace import Workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="there is no Chromium on this machine"),
]

VIEWS = ("explore", "compare", "try", "run")
SETTLED = "document.querySelector('main h1, main .problem') !== null && !document.querySelector('[aria-busy]')"
OVERFLOWING = """[...document.querySelectorAll('header *, main *')].filter(element => {
  const box = element.getBoundingClientRect();
  return !element.closest('.scroll, .strip, .tiles, .bar, .unseen') && box.width > 0
    && (box.right > innerWidth + 1 || box.left < -1);
}).map(element => element.outerHTML.slice(0, 80))"""
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> & <b>bold</b>"


@pytest.fixture(scope="module")
def workspace(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`trained` with a RUN, and a poster of one item."""
    own = copy_of(trained, tmp_path_factory.mktemp("served") / "workspace")
    ranking.run(EvaluateSettings(dataset=DATASET, root=str(own.root), tag="grpo", device="cpu"), own)
    item = read_candidates(own.dataset(DATASET).candidates("test", "uni9", WINDOW, 42))[0].history[0]
    folder = own.root / "data" / DATASET / "images"
    folder.mkdir()
    Image.new("RGB", (20, 30), "teal").save(folder / f"{item}.png")
    return own


@pytest.fixture(scope="module")
def models(workspace: Workspace) -> list[Recommender]:
    return [
        Recommender.load(workspace.root, DATASET, tag, device="cpu", retriever="markov")
        for tag in ("grpo", "sft-merged")
    ]


@pytest.fixture(scope="module")
def example(workspace: Workspace) -> RankingExample:
    return read_candidates(workspace.dataset(DATASET).candidates("test", "uni9", WINDOW, 42))[0]


@contextmanager
def serving(workspace: Workspace, models: Sequence[Recommender], *, key: str = "", port: int = 0) -> Iterator[str]:
    """The address of a server with these models, which ends with the block."""
    tags = tuple(model.name for model in models)
    app = make_app(ServeSettings(dataset=DATASET, root=str(workspace.root), tag=tags), lambda: models, key=key)
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            end = time.monotonic() + 60
            while not server.started:
                assert time.monotonic() < end, "the server didn't start"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(timeout=30)


@pytest.fixture(scope="module")
def address(workspace: Workspace, models: list[Recommender]) -> Iterator[str]:
    with serving(workspace, models) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def show(browser: Browser, address: str, part: str, **window: Any) -> None:
    """Load the page anew, and wait until nothing is awaited."""
    browser.open("about:blank", **window)
    browser.told.clear()
    browser.requests.clear()
    browser.open(f"{address}#{part}", **window)
    browser.wait(SETTLED)


def texts(browser: Browser, selector: str) -> list[str]:
    found: list[str] = browser.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(own => own.textContent)"
    )
    return found


def press(browser: Browser, key: str, *, alt: bool = False) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=int(alt))


def share(probability: float) -> str:
    if 0 < probability < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 < probability < 1 else f"{100 * probability:.1f}%"


@pytest.mark.parametrize("width", [375, 768, 1440, 1920])
@pytest.mark.parametrize("dark", [False, True])
def test_every_view_fits_and_asks_nobody_else(
    browser: Browser, address: str, example: RankingExample, width: int, dark: bool
) -> None:
    for view in VIEWS:
        more = f"&history={','.join(example.history)}" if view == "try" else ""
        show(browser, address, f"{view}?user={example.user_id}{more}", width=width, dark=dark)
        assert browser.told == []
        assert browser.requests
        assert all(url.startswith(address) for url in browser.requests if url != "about:blank")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run(OVERFLOWING) == [], view
        assert browser.run("[...document.images].filter(own => own.complete && !own.naturalWidth).length") == 0


def test_exploring_a_user_shows_ranks_and_reasons(
    browser: Browser, address: str, models: list[Recommender], example: RankingExample
) -> None:
    show(browser, address, f"explore?user={example.user_id}")
    ranked = models[0].rank(example.history, example.candidates)
    assert texts(browser, ".ranking .share") == [share(item.probability) for item in ranked]
    held = texts(browser, ".ranking .target .title")
    title = models[0].names.catalogue.title(example.target_id)
    assert held == [f"{title} ◆ held out"]
    assert len(texts(browser, ".strip li:not(.next)")) == len(example.history)
    assert browser.run("document.querySelectorAll('.strip img').length") == 1
    assert browser.run("document.querySelectorAll('.strip .cover').length") == len(example.history) - 1

    wanted = ranked[2]
    browser.run("document.querySelectorAll('.ranking button.row')[2].click()")
    browser.wait(f"document.querySelector('.why h2')?.textContent.startsWith({json.dumps(wanted.title)})")
    assert f"item={wanted.item_id}" in browser.run("location.hash")
    why = models[0].explain(example.history, wanted.item_id, example.candidates)
    shown = [re.sub(", (for|against) it$", "", own).replace("−", "-") for own in texts(browser, ".effects .figure")]
    assert shown == [re.sub(r"^[+-]0\.00$", "0.00", f"{reason.effect:+.2f}") for reason in why.reasons]
    assert browser.run("document.querySelector('#status').textContent").startswith(wanted.title)

    browser.run("document.querySelectorAll('.ranking button.row')[2].focus()")
    press(browser, "ArrowDown")
    assert browser.run("document.activeElement.dataset.item") == ranked[3].item_id
    assert browser.run("[...document.querySelectorAll('.ranking .row')].filter(own => own.tabIndex === 0).length") == 1


def test_a_user_is_found_by_typing(browser: Browser, address: str, example: RankingExample) -> None:
    show(browser, address, "explore")
    browser.run(
        "(field => { field.focus(); field.value = " + json.dumps(example.user_id) + ";"
        "field.dispatchEvent(new Event('input', {bubbles: true})) })(document.querySelector('[role=combobox]'))"
    )
    browser.wait("document.querySelector('[role=option]') !== null")
    press(browser, "ArrowDown")
    assert browser.run("document.activeElement.getAttribute('aria-activedescendant')")
    press(browser, "Escape")
    time.sleep(0.4)  # Longer than the field waits before it searches.
    assert browser.run("document.querySelector('[role=combobox]').getAttribute('aria-expanded')") == "false"
    press(browser, "Enter")
    browser.wait(f"location.hash.includes('user={example.user_id}')")


def test_comparing_draws_the_moves(
    browser: Browser, address: str, models: list[Recommender], example: RankingExample
) -> None:
    show(browser, address, f"compare?user={example.user_id}&a=sft-merged&b=grpo")
    after, before = ([item.item_id for item in model.rank(example.history, example.candidates)] for model in models)
    shown = browser.run(
        "[...document.querySelectorAll('.duel ol')].map(list => [...list.children].map(own => own.dataset.item))"
    )
    assert shown == [before, after]
    moves = [before.index(item) - row for row, item in enumerate(after)]
    words = [f"↑ {by} up" if by > 0 else f"↓ {-by} down" if by else "as before" for by in moves]
    assert texts(browser, ".duel .move") == words
    assert browser.run("document.querySelectorAll('.slopes path').length") == len(before)


def test_a_history_is_built_reordered_and_recommended_for(
    browser: Browser, address: str, models: list[Recommender]
) -> None:
    show(browser, address, "try?k=5")
    ids = browser.run("[...document.querySelectorAll('.tile')].slice(0, 3).map(own => own.dataset.item)")
    for row, item in enumerate(ids):
        browser.run(f"document.querySelector('.tile[data-item={json.dumps(item)}]').click()")
        browser.wait(f"document.querySelectorAll('.made-list li').length === {row + 1}")
    assert recommended(browser, ids) == [item.item_id for item in models[0].recommend(ids, 5)]
    assert "found by markov; ranked by grpo" in texts(browser, ".found .credit")[0]

    browser.run("document.querySelectorAll('.made-list li')[2].focus()")
    press(browser, "ArrowUp", alt=True)
    turned = [ids[0], ids[2], ids[1]]
    assert recommended(browser, turned) == [item.item_id for item in models[0].recommend(turned, 5)]
    browser.wait("document.activeElement.matches('.made-list li:nth-child(2)')")
    press(browser, "Delete")
    assert recommended(browser, [ids[0], ids[1]]) == [item.item_id for item in models[0].recommend(ids[:2], 5)]

    drop = """(() => { const data = new DataTransfer(), list = document.querySelectorAll('.made-list li');
      const send = (node, kind, y) => node.dispatchEvent(
        new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: data, clientY: y}));
      send(list[1], 'dragstart', 0);
      const top = list[0].getBoundingClientRect().top + 1;
      send(list[0], 'dragover', top); send(list[0], 'drop', top); })()"""
    browser.run(drop)
    assert recommended(browser, [ids[1], ids[0]])


def recommended(browser: Browser, history: Sequence[str]) -> list[str]:
    """What is recommended as soon as the history is this one."""
    browser.wait(f"new URLSearchParams(location.hash.split('?')[1]).get('history') === {json.dumps(','.join(history))}")
    time.sleep(0.4)  # Longer than the page waits before it asks.
    browser.wait(SETTLED)
    found: list[str] = browser.run("[...document.querySelectorAll('.found .row')].map(own => own.dataset.item)")
    return found


def test_titles_with_markup_stay_text(browser: Browser, address: str) -> None:
    show(browser, address, "try")
    browser.run(
        "(field => { field.value = " + json.dumps(HOSTILE) + ";"
        "field.dispatchEvent(new Event('input', {bubbles: true})) })(document.querySelector('#search'))"
    )
    browser.wait("document.querySelector('.own') !== null")
    browser.run("document.querySelector('.own').click()")
    browser.wait("document.querySelector('.made-list li') !== null")
    browser.wait("document.querySelector('.found .row') !== null")
    assert texts(browser, ".made-list .title") == [HOSTILE]
    assert browser.run("document.title") == "Try it, mllmrec"
    assert browser.run("document.querySelectorAll('.made-list b, .made-list img').length") == 0
    assert browser.told == []


def test_the_run_shows_what_was_measured(browser: Browser, address: str, workspace: Workspace) -> None:
    show(browser, address, "run")
    [path] = (workspace.root / "result" / DATASET).glob("grpo/*/metrics.json")
    metrics = json.loads(path.read_text())["metrics"]
    assert [own[: own.index(".") + 4] for own in texts(browser, ".ladder tbody td:not(.plot)")] == [
        f"{own['value']:.3f}" for own in metrics.values()
    ]
    assert browser.run("document.querySelectorAll('.interval .dot').length") == 1


def test_a_server_that_is_gone_can_be_asked_again(
    browser: Browser, workspace: Workspace, models: list[Recommender], example: RankingExample
) -> None:
    with serving(workspace, models) as address:
        show(browser, address, f"explore?user={example.user_id}")
    browser.run("document.querySelectorAll('.ranking button.row')[1].click()")
    browser.wait("document.querySelector('.problem[data-kind=gone]') !== null")
    assert "doesn’t answer" in texts(browser, "#status")[0]
    with serving(workspace, models, port=int(address.split(":")[-1].strip("/"))):
        browser.wait("document.querySelector('.problem button') !== null")
        browser.run("document.querySelector('.problem button').click()")
        browser.wait("document.querySelector('.why .effects') !== null")


def test_a_key_is_asked_for_and_kept_in_the_tab_alone(
    browser: Browser, workspace: Workspace, models: list[Recommender], example: RankingExample
) -> None:
    with serving(workspace, models, key="open sesame") as address:
        show(browser, address, f"explore?user={example.user_id}")
        for key, wanted in (("wrong", ".problem[data-kind=key]"), ("open sesame", ".ranking .row")):
            browser.run(
                f"document.querySelector('#key').value = {json.dumps(key)};"
                "document.querySelector('.key button').click()"
            )
            browser.wait(f"document.querySelector({json.dumps(wanted)}) !== null && {SETTLED}")
        browser.wait("document.querySelector('.strip img')?.src.startsWith('blob:')")
        browser.wait("document.querySelector('.strip img').naturalWidth === 20")
        assert browser.run("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        browser.run("sessionStorage.clear()")


def test_the_first_tab_leads_past_the_header(browser: Browser, address: str) -> None:
    show(browser, address, "run")
    browser.call("Input.dispatchKeyEvent", type="rawKeyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.run("document.activeElement.id") == "skip"
    assert browser.run("document.activeElement.getBoundingClientRect().left") >= 0
    browser.run("document.activeElement.click()")
    assert browser.run("document.activeElement.id") == "main"
    assert browser.run("location.hash").startswith("#run")
