"""The HTTP API: answers are those of the recommender, and whatever is wrong with a request is told in one paragraph."""

from __future__ import annotations

import gzip
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import DATASET, WINDOW

from mllmrec import Recommender
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.errors import ArtifactError
from mllmrec.evaluation.ranking import stage as ranking
from mllmrec.records import RankingExample
from mllmrec.serving.app import make_app
from mllmrec.serving.catalogue_api import TYPES
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.serving import ServeSettings
from mllmrec.storage.workspace import IMAGE_SUFFIXES, Workspace, read_jsonl, write_json

LISTS = f"test_uni9_w{WINDOW}_s42"
PNG = b"\x89PNG\r\n\x1a\n and then nothing of a picture"


def eventually(ask: Callable[[], Any]) -> Any:
    """What `ask` gives once it isn't None."""
    for _ in range(600):
        if (found := ask()) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("nothing came")


def loaded(root: Any, tag: str = "grpo") -> Recommender:
    return Recommender.load(root, DATASET, tag, device="cpu", retriever="markov")


@pytest.fixture(scope="module")
def recommender(trained: Workspace) -> Recommender:
    return loaded(trained.root)


@pytest.fixture(scope="module")
def second(trained: Workspace) -> Recommender:
    return loaded(trained.root, "sft-merged")


@pytest.fixture(scope="module")
def examples(trained: Workspace) -> list[RankingExample]:
    return read_candidates(trained.dataset(DATASET).candidates("test", "uni9", WINDOW, 42))


@contextmanager
def serving(models: Sequence[Recommender], *, key: str = "", **options: Any) -> Iterator[TestClient]:
    """A client of an app whose models are there."""
    knobs = ServeSettings(dataset=DATASET, tag=tuple(model.name for model in models), **options)
    with TestClient(make_app(knobs, lambda: models, key=key), raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield client


def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def client(recommender: Recommender, second: Recommender) -> Iterator[TestClient]:
    with serving([recommender, second]) as client:
        yield client


def refusal(answer: Any, status: int) -> str:
    """The paragraph of an answer that isn't the one asked for."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail", "message"}
    assert answer.json()["detail"] == answer.json()["message"]
    return str(answer.json()["detail"])


def question(example: RankingExample) -> dict[str, Any]:
    return {"history": example.history, "candidates": example.candidates}


def test_ranks_are_those_of_evaluate(
    trained_copy: Workspace, client: TestClient, examples: list[RankingExample]
) -> None:
    ranking.run(EvaluateSettings(dataset=DATASET, root=str(trained_copy.root), tag="grpo", device="cpu"), trained_copy)
    path = trained_copy.dataset(DATASET).run("grpo", LISTS) / "rankings.jsonl"
    rows = {row["example_id"]: row["scores"] for row in read_jsonl(path)}
    for example in examples[:8]:
        found = client.post("/v1/rank", json=question(example)).json()
        scores = [item["log_probability"] for item in sorted(found["items"], key=lambda item: item["index"])]
        assert scores == pytest.approx(rows[example.example_id], abs=1e-4)
        assert [item["item_id"] for item in found["items"]] == sorted(
            example.candidates, key=lambda item: -scores[example.candidates.index(item)]
        )
        assert sum(item["probability"] for item in found["items"]) == pytest.approx(1)
        assert found["model"] == "grpo"
        assert found["tokens"] > len(example.candidates)


def test_a_model_is_chosen_by_its_name(client: TestClient, second: Recommender, examples: list[RankingExample]) -> None:
    found = client.post("/v1/rank", json=question(examples[0]) | {"model": "sft-merged", "top_k": 3}).json()
    expected = second.rank(examples[0].history, examples[0].candidates, 3)
    assert found["model"] == "sft-merged"
    assert [item["log_probability"] for item in found["items"]] == pytest.approx(
        [item.log_probability for item in expected], abs=1e-5
    )
    told = refusal(client.post("/v1/rank", json=question(examples[0]) | {"model": "gone"}), 404)
    assert "grpo, sft-merged" in told
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["grpo", "sft-merged"]
    assert listed["data"][0] | {"base": ""} == {
        "id": "grpo",
        "object": "model",
        "dataset": DATASET,
        "base": "",
        "window": WINDOW,
        "captions": bool(second.ranker.encoder.renderer.captions),
        "thoughts": 0,
        "retriever": "markov",
        "blend": None,
    }


def test_recommendations_for_a_user_leave_out_what_the_user_met(client: TestClient, recommender: Recommender) -> None:
    user = recommender.interactions.test[0].user_id
    found = client.post("/v1/recommend", json={"user": user, "top_k": 4, "retrieve": 12}).json()
    expected = recommender.recommend(recommender.history_of(user), 4, 12, recommender.met_by(user))
    assert [item["item_id"] for item in found["items"]] == [item.item_id for item in expected]
    assert [item["probability"] for item in found["items"]] == pytest.approx([own.probability for own in expected])
    assert [item["item_id"] for item in found["history"]] == [*recommender.history_of(user)]
    assert (found["retriever"], found["blend"]) == ("markov", None)
    best = found["items"][0]["item_id"]
    body = {"user": user, "retrieve": 12, "exclude": [best]}
    assert best not in [item["item_id"] for item in client.post("/v1/recommend", json=body).json()["items"]]


def test_reasons_are_those_of_the_recommender(
    client: TestClient, recommender: Recommender, examples: list[RankingExample]
) -> None:
    example, wanted = examples[1], examples[1].candidates[3]
    found = client.post("/v1/explain", json=question(example) | {"item": wanted}).json()
    expected = recommender.explain(example.history, wanted, example.candidates)
    assert found["item"]["item_id"] == wanted
    assert found["log_odds"] == pytest.approx(expected.log_odds, abs=1e-4)
    assert [reason["item_id"] for reason in found["reasons"]] == [own.item_id for own in expected.reasons]
    assert [own["effect"] for own in found["reasons"]] == pytest.approx(
        [own.effect for own in expected.reasons], abs=1e-4
    )
    assert found["candidates"] == [*example.candidates]
    assert (found["history_given"], found["history_read"]) == (len(example.history),) * 2
    longer = client.post("/v1/rank", json={"history": [wanted, *example.history], "candidates": [wanted]}).json()
    assert (longer["history_given"], longer["history_read"]) == (len(example.history) + 1, len(example.history))
    alone = client.post("/v1/explain", json={"history": example.history, "item": wanted, "candidates": [wanted]})
    assert alone.json()["log_odds"] is None
    assert alone.json()["probability"] == 1


def test_documents_are_reranked(client: TestClient, recommender: Recommender, examples: list[RankingExample]) -> None:
    example = examples[0]
    body = {"query": json.dumps({"history": example.history}), "documents": example.candidates}
    found = client.post("/v1/rerank", json=body).json()
    expected = recommender.rank(example.history, example.candidates)
    assert [result["index"] for result in found["results"]] == [item.index for item in expected]
    assert [own["relevance_score"] for own in found["results"]] == pytest.approx([own.probability for own in expected])
    told = refusal(client.post("/v2/rerank", json=body | {"documents": ["x"] * 1001}), 422)
    assert "documents: 1,001 items are too many" in told


def test_items_are_searched_in_pages(client: TestClient, recommender: Recommender) -> None:
    names = recommender.names
    everything = client.get("/v1/items", params={"limit": 1000}).json()
    assert everything["total"] == len(names.pool) == len(everything["items"])
    pages = [client.get("/v1/items", params={"limit": 7, "offset": offset}).json() for offset in (0, 7)]
    assert [*pages[0]["items"], *pages[1]["items"]] == everything["items"][:14]
    first = everything["items"][0]
    assert client.get(f"/v1/items/{first['item_id']}").json() == first
    found = client.get("/v1/items", params={"query": first["title"].upper()}).json()
    assert first["item_id"] in [item["item_id"] for item in found["items"]]
    assert client.get("/v1/items", params={"query": "nothing is called so"}).json() == {"items": [], "total": 0}
    assert "no item 'gone'" in refusal(client.get("/v1/items/gone"), 404)


def test_users_bear_their_frozen_lists(
    client: TestClient, recommender: Recommender, examples: list[RankingExample]
) -> None:
    listed = client.get("/v1/users", params={"limit": 5}).json()
    assert listed["total"] == len(recommender.users)
    for user in listed["users"]:
        assert user["length"] == len(recommender.history_of(user["user_id"]))
    example = examples[0]
    shown = client.get(f"/v1/users/{example.user_id}").json()
    assert [item["item_id"] for item in shown["history"]] == [*example.history]
    assert shown["target"]["item_id"] == example.target_id
    assert shown["candidates"] == [*example.candidates]
    assert client.get("/v1/users", params={"query": example.user_id}).json()["total"] >= 1
    assert "no user 'nobody'" in refusal(client.get("/v1/users/nobody"), 404)
    refusal(client.post("/v1/recommend", json={"user": "nobody"}), 404)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"history": [], "candidates": ["FIRST", "FIRST"]}, 400, "is given twice"),
        ({"history": [], "candidates": ["nothing is called so"]}, 400, "No item has the id or title"),
        ({"history": [], "candidates": [{"id": "../x", "title": "x"}]}, 400, "can't be used"),
        ({"history": [], "candidates": [{"id": "FIRST", "title": "another"}]}, 400, "Give it another id"),
        ({"history": [], "candidates": ["FIRST", {"id": "mine", "title": " \u200b"}]}, 422, "nothing of this title"),
        ({"history": [], "candidates": []}, 422, "body.candidates"),
        ({"candidates": ["FIRST"]}, 422, "either a user or a history"),
        ({"user": "1", "history": [], "candidates": ["FIRST"]}, 422, "either a user or a history"),
        ({"history": [], "candidates": ["FIRST"], "topk": 3}, 422, "topk"),
        ({"history": [], "candidates": ["FIRST"], "top_k": 0}, 422, "top_k"),
        ({"history": [], "candidates": [7]}, 422, "candidates"),
        ({"history": [], "candidates": ["\ud800"]}, 422, "candidates"),
        ({"history": ["x" * 501], "candidates": ["FIRST"]}, 422, "history"),
        ({"history": ["FIRST"] * 1001, "candidates": ["FIRST"]}, 422, "history: 1,001 items are too many"),
        ({"history": [], "candidates": ["FIRST"] * 1001}, 422, "candidates: 1,001 items are too many"),
        ([], 422, "body"),
        ("{", 422, "JSON"),
        ("[" * 100_000, 4, ""),
        ('{"history": [], "candidates": ["a"], "top_k": ' + "9" * 5000 + "}", 4, ""),
    ],
)
def test_a_wrong_question_is_answered_in_one_paragraph(
    client: TestClient, recommender: Recommender, body: Any, status: int, words: str
) -> None:
    text = body if isinstance(body, str) else json.dumps(body).replace("FIRST", recommender.names.pool[0])
    answer = client.post("/v1/rank", content=text, headers={"Content-Type": "application/json"})
    status = answer.status_code if status == 4 and answer.status_code in (400, 422) else status
    assert words in refusal(answer, status)


def test_markup_stays_text(client: TestClient, recommender: Recommender) -> None:
    title = '<script>alert("1")</script>'
    body = {"history": [], "candidates": [recommender.names.pool[0], {"id": "mine", "title": title}]}
    answer = client.post("/v1/rank", json=body)
    assert answer.headers["content-type"] == "application/json"
    own = next(item for item in answer.json()["items"] if item["item_id"] == "mine")
    assert own == own | {"title": title, "image": None, "caption": None, "raw_id": "mine"}


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_a_body_that_is_not_sent_as_json_is_told_so(client: TestClient, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    for path, body in (("/v1/rank", {"history": [], "candidates": ["1"]}), ("/rerank", {"query": "1"})):
        answer = client.post(path, content=json.dumps(body), headers=headers)
        assert "with the header Content-Type: application/json" in refusal(answer, 422)


def test_a_compressed_body_is_told_so(client: TestClient) -> None:
    packed = gzip.compress(json.dumps({"history": [], "candidates": ["1"]}).encode())
    for path in ("/v1/rank", "/rerank"):
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        answer = client.post(path, content=packed, headers=headers)
        assert "packed as 'gzip'" in refusal(answer, 415)
        assert answer.headers["accept-encoding"] == "identity"


def test_every_answer_bears_the_headers_of_safety(client: TestClient) -> None:
    for path in ("/healthz", "/nowhere", "/v1/items/gone", "/v1/models"):
        headers = client.get(path, headers={"Origin": "https://elsewhere.example"}).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
    refusal(client.get("/nowhere"), 404)
    refusal(client.get("/v1/rank"), 405)


def test_a_key_is_asked_for_where_one_is_set(recommender: Recommender, examples: list[RankingExample]) -> None:
    with serving([recommender], key="s3cret") as client:
        for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}):
            answer = client.post("/v1/rank", json=question(examples[0]), headers=headers)
            assert "Bearer KEY" in refusal(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        refusal(client.get("/metrics"), 401)
        refusal(client.get("/images/1"), 401)
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        assert client.head("/healthz").status_code == client.head("/readyz").status_code == 200
        right = {"Authorization": "Bearer s3cret"}
        assert client.post("/v1/rank", json=question(examples[0]), headers=right).status_code == 200


def test_a_body_has_a_limit(recommender: Recommender) -> None:
    with serving([recommender], max_body_kb=1) as client:
        assert "at most 1 KiB" in refusal(client.post("/v1/rank", content=b"x" * 2000), 413)
        parts = (b"x" * 100 for _ in range(20))
        refusal(client.post("/v1/rank", content=parts), 413)


def test_images_are_found_by_items_alone(trained_copy: Workspace, recommender: Recommender) -> None:
    first, second = recommender.names.pool[:2]
    folder = trained_copy.dataset(DATASET).images
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    (folder / f"{first}.png").write_bytes(PNG)
    (folder.parent / "secret.png").write_bytes(b"secret")
    with serving([loaded(trained_copy.root)]) as client:
        answer = client.get(f"/images/{first}")
        assert (answer.status_code, answer.content) == (200, PNG)
        assert answer.headers["content-type"] == "image/png"
        again = client.get(f"/images/{first}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(f"/v1/items/{first}").json()["image"] == f"/images/{first}"
        assert client.get(f"/v1/items/{second}").json()["image"] is None
        for name in (second, "..%2Fsecret", "%2e%2e/secret", f"{first}.png", "..%5Csecret", f"%00{first}", "%ff"):
            answer = client.get(f"/images/{name}")
            refusal(answer, 404)
        (folder / f"{first}.png").unlink()
        refusal(client.get(f"/images/{first}"), 404)


def test_every_image_that_a_dataset_may_have_is_served_as_one() -> None:
    assert set(TYPES) == set(IMAGE_SUFFIXES)


def test_items_and_users_are_found_by_their_raw_ids(trained_copy: Workspace) -> None:
    files = trained_copy.dataset(DATASET)
    example = read_candidates(files.candidates("test", "uni9", WINDOW, 42))[0]
    files.raw_ids.write_text(f"kind,raw,id\nuser,who:7,{example.user_id}\nitem,b:1,{example.history[0]}\n")
    with serving([loaded(trained_copy.root)]) as client:
        item = client.get("/v1/items/b:1").json()
        assert (item["item_id"], item["raw_id"]) == (example.history[0], "b:1")
        user = client.get("/v1/users/who:7").json()
        assert user["user_id"] == example.user_id
        assert [own["item_id"] for own in user["history"]] == [*example.history]


def test_runs_curves_and_the_report_are_shown(trained_copy: Workspace) -> None:
    results = trained_copy.dataset(DATASET).results
    value = {"value": 0.5, "low": 0.4, "high": 0.6}
    facts = {"name": "grpo", "candidates": LISTS, "num_users": 6, "metrics": {"HR@1": value}, "more": [1]}
    write_json(results / "grpo" / LISTS / "metrics.json", facts)
    with serving([loaded(trained_copy.root)]) as client:
        refusal(client.get("/report"), 404)
        shown = client.get("/v1/run").json()
        assert shown["report"] is False
        assert {name: facts[name] for name in facts if name != "more"} in shown["runs"]
        steps = shown["curves"]["grpo"]
        with (trained_copy.checkpoint(DATASET, "grpo") / "training.jsonl").open("a") as log:
            log.write('{"step": 9, "loss": NaN}\n{"step": 1')
        assert client.get("/v1/run").json()["curves"]["grpo"] == [*steps, {"step": 9, "loss": None}]
        assert steps
        (results / "report.html").write_text("<p>Report</p>")
        audit = eventually(lambda: client.get("/v1/run").json()["audit"])
        assert audit["passed"] is True
        assert "0 leaks" in audit["headline"]
        assert client.get("/v1/run").json()["report"] is True
        report = client.get("/report")
        assert report.text == "<p>Report</p>"
        assert "style-src 'unsafe-inline'" in report.headers["content-security-policy"]


def test_a_model_that_is_not_there_is_told_for_as_long_as_the_server_lives() -> None:
    go_on = threading.Event()

    def load() -> list[Recommender]:
        assert go_on.wait(60)
        raise ArtifactError("The checkpoint gone is missing.")

    knobs = ServeSettings(dataset=DATASET, tag=("gone",))
    with TestClient(make_app(knobs, load)) as client:
        assert "Loading gone" in refusal(client.get("/readyz"), 503)
        assert client.get("/healthz").status_code == 200
        go_on.set()
        wait_until(lambda: "couldn't be loaded" in client.get("/readyz").text)
        assert "The checkpoint gone is missing." in refusal(client.get("/v1/models"), 503)
        refusal(client.post("/v1/rank", json={"history": [], "candidates": ["1"]}), 503)
        refusal(client.get("/images/1"), 503)
        assert client.get("/healthz").status_code == 200


def test_figures_are_counted(recommender: Recommender, examples: list[RankingExample]) -> None:
    with serving([recommender]) as client:
        tokens = client.post("/v1/rank", json=question(examples[0])).json()["tokens"]
        client.get("/v1/items/gone")
        client.get("/wp-admin.php")
        lines = client.get("/metrics").text.splitlines()
        assert 'mllmrec_requests_total{route="/v1/rank",status="200"} 1.0' in lines
        assert 'mllmrec_requests_total{route="/v1/items/{item_id}",status="404"} 1.0' in lines
        assert 'mllmrec_requests_total{route="none",status="404"} 1.0' in lines
        assert 'mllmrec_request_seconds_count{route="/v1/rank"} 1.0' in lines
        assert 'mllmrec_questions_per_pass_count{model="grpo"} 1.0' in lines
        assert f'mllmrec_tokens_total{{model="grpo"}} {float(tokens)}' in lines
        assert "mllmrec_waiting 0.0" in lines


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "history": st.lists(st.text(max_size=20) | ANY_JSON, max_size=4) | ANY_JSON,
        "user": st.text(max_size=9) | ANY_JSON,
        "candidates": st.lists(st.text(max_size=20) | ANY_JSON, max_size=4) | ANY_JSON,
        "item": st.text(max_size=20) | ANY_JSON,
        "exclude": st.lists(st.text(max_size=20), max_size=3) | ANY_JSON,
        "top_k": st.integers() | ANY_JSON,
        "retrieve": st.integers(max_value=30) | ANY_JSON,
        "model": st.text(max_size=9) | ANY_JSON,
    },
)


@given(path=st.sampled_from(["rank", "recommend", "explain"]), body=NEARLY | ANY_JSON)
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_breaks_the_server(client: TestClient, path: str, body: Any) -> None:
    answer = client.post(f"/v1/{path}", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 404, 422), answer.text
    if answer.status_code != 200:
        refusal(answer, answer.status_code)
