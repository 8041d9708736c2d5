"""Reranking by the API that clients of Cohere, Jina and vLLM speak; the figures are those of `Recommender.rank`.

The requests of clients are the bytes that these sent to a server that wrote them down: cohere 5.21.1, langchain-cohere
0.6.0, vllm-haystack 3.0.1 and dify-plugin 0.7.4. Those of Open WebUI and Gorse are written after their sources.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from small_models import DATASET

from mllmrec import Item, Recommender
from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import Catalogue
from mllmrec.records import RankingExample
from mllmrec.serving.app import make_app
from mllmrec.serving.items import ItemNames
from mllmrec.serving.rerank_api import read
from mllmrec.settings.serving import ServeSettings

Json = dict[str, Any]


@pytest.fixture(scope="module")
def client(recommender: Recommender) -> Iterator[TestClient]:
    knobs = ServeSettings(dataset=DATASET, tag=("grpo",), max_candidates=20, max_history=8)
    with TestClient(make_app(knobs, lambda: [recommender])) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.01)
        yield client


def ask(client: TestClient, path: str = "/v2/rerank", **body: Any) -> Json:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]


def order(answer: Json) -> list[int]:
    return [result["index"] for result in answer["results"]]


def test_documents_are_ranked_as_evaluate_ranks_them(
    client: TestClient, recommender: Recommender, examples: list[RankingExample]
) -> None:
    title = recommender.names.catalogue.title
    for example in examples[:4]:
        ranked = recommender.rank(example.history, example.candidates)
        lines = "\n".join(f"[ITEM_{item}] {title(item)}" for item in example.history)
        found = ask(client, query=lines, documents=list(example.candidates))
        assert order(found) == [item.index for item in ranked]
        assert found["meta"]["warnings"] == []
        longer = ask(client, query=f"{example.candidates[0]}\n{lines}", documents=list(example.candidates))
        assert order(longer) == [item.index for item in ranked]
        count = len(example.history)
        told = f"Of the {count + 1} items of the history the model was shown the last {count}."
        assert longer["meta"]["warnings"] == [told]
        assert [result["relevance_score"] for result in found["results"]] == pytest.approx(
            [item.probability for item in ranked], abs=1e-5
        )
        assert found["meta"]["unmatched"] == {"query": [], "documents": []}
        for query, documents in (
            ("\n".join(map(title, example.history)), [title(item).upper() for item in example.candidates]),
            (json.dumps({"history": example.history}), [f"[ITEM_{item}]" for item in example.candidates]),
            ("\n".join(example.history), [recommender.names.raw(item) for item in example.candidates]),
        ):
            assert order(ask(client, query=query, documents=documents)) == order(found)


def test_a_user_stands_for_the_history_before_the_held_out_item(
    client: TestClient, recommender: Recommender, examples: list[RankingExample]
) -> None:
    example = examples[0]
    by_user = ask(client, query=json.dumps({"user": example.user_id}), documents=list(example.candidates))
    ranked = recommender.rank(recommender.history_of(example.user_id), example.candidates)
    assert order(by_user) == [item.index for item in ranked]
    unknown = client.post("/rerank", json={"query": '{"user": "nobody"}', "documents": ["a"]})
    assert unknown.status_code == 404
    assert "has no user 'nobody'" in unknown.text


def test_a_document_that_is_given_twice_is_ranked_once(
    client: TestClient, recommender: Recommender, examples: list[RankingExample]
) -> None:
    example, title = examples[0], recommender.names.catalogue.title
    first, second, third = example.candidates[:3]
    documents = [first, second, title(first), third, f"[ITEM_{first}]", "A new thing", "a  NEW thing"]
    found = ask(client, query="\n".join(example.history), documents=documents)
    [own] = recommender.names.new_items(["A new thing"])
    ranked = recommender.rank(example.history, [first, second, third, own])
    share = {item.item_id: item.probability for item in ranked}
    ids = [first, second, first, third, first, own.item_id, own.item_id]
    assert order(found) == sorted(range(7), key=lambda index: -share[ids[index]])
    for result in found["results"]:
        assert result["relevance_score"] == pytest.approx(share[ids[result["index"]]], abs=1e-5)
    assert found["meta"]["unmatched"]["documents"] == [5, 6]


def test_free_text_is_a_history_of_one_item(
    client: TestClient, recommender: Recommender, examples: list[RankingExample]
) -> None:
    example, text = examples[0], "What is the capital of the United States?"
    found = ask(client, query=text, documents=list(example.candidates))
    [own] = recommender.names.new_items([text])
    assert order(found) == [item.index for item in recommender.rank([own], example.candidates)]
    assert found["meta"]["unmatched"]["query"] == [text]
    assert "Lines of the query that stand for no item" in found["meta"]["warnings"][0]


def test_an_item_must_have_the_title_that_is_given_with_its_id(recommender: Recommender) -> None:
    names = recommender.names
    first, second = names.pool[:2]
    title = names.catalogue.title
    spelt = [f"[ITEM_{first}] {title(first)}", f"[ITEM_{first}]", f"[ITEM_{first}] {title(second)}", "[ITEM_gone]"]
    own, other = names.new_items([title(second), "[ITEM_gone]"])
    assert read(spelt, names).items == (first, first, own, other)


def test_texts_of_ones_own_are_no_longer_than_titles_may_be(recommender: Recommender) -> None:
    reading = read(["word " * 60, "長" * 300, "short"], recommender.names)
    assert [len(item.title) for item in reading.items if isinstance(item, Item)] == [64, 64, 5]
    assert reading.warnings == ("Texts that were cut to 64 characters, since no title is longer: 2.",)


def test_of_two_items_with_one_title_the_first_is_taken_and_said() -> None:
    catalogue = Catalogue([Item(item_id=name, title="Hamlet") for name in ("h1", "h2")])
    reading = read(["hamlet", "h2"], ItemNames(catalogue, RawIds(users={}, items={}), ["h1", "h2"]))
    assert reading.items == ("h1", "h2")
    assert reading.warnings == ("2 items are called 'hamlet': h1 was taken.",)


def test_a_text_that_is_an_id_and_the_title_of_another_item_is_told() -> None:
    catalogue = Catalogue([Item(item_id="300", title="Alien"), Item(item_id="12", title="300")])
    names = ItemNames(catalogue, RawIds(users={}, items={}), ["300", "12"])
    assert read(["300", "alien"], names).items == ("300", "300")
    assert read(["300", " 300 "], names).warnings == ("'300' is an id, and the title of 12: the id was taken.",)
    assert read(["12", "[ITEM_300]", "[ITEM_12] 300"], names).warnings == ()


@pytest.mark.parametrize(("top_n", "length"), [(None, 10), (0, 10), (3, 3), (10, 10), (1000, 10)])
def test_the_best_are_given_back(
    client: TestClient, examples: list[RankingExample], top_n: int | None, length: int
) -> None:
    body: Json = {"query": "\n".join(examples[1].history), "documents": list(examples[1].candidates)}
    whole = ask(client, **body)
    assert ask(client, **body, top_n=top_n)["results"] == whole["results"][:length]
    assert sum(result["relevance_score"] for result in whole["results"]) == pytest.approx(1)


def test_an_answer_has_the_fields_of_all_dialects(client: TestClient, examples: list[RankingExample]) -> None:
    example = examples[0]
    documents: list[Any] = [{"text": item, "title": "ignored"} for item in example.candidates]
    for path, version in (("/rerank", "2"), ("/v1/rerank", "1"), ("/v2/rerank", "2")):
        found = ask(
            client,
            path,
            query=example.history[0],
            documents=documents,
            return_documents=True,
            priority=7,
            rank_fields=[],
        )
        assert set(found) == {"id", "model", "results", "usage", "meta"}
        assert found["model"] == "grpo"
        assert found["usage"]["total_tokens"] > 0
        assert found["meta"]["api_version"] == {"version": version}
        assert found["meta"]["billed_units"] == {"search_units": 1}
        for result in found["results"]:
            assert result["document"] == {"text": example.candidates[result["index"]]}
    plain = ask(client, query=example.history[0], documents=list(example.candidates))
    assert set(plain["results"][0]) == {"index", "relevance_score"}
    assert plain["id"] != found["id"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"query": "a", "documents": []}, 422, "documents"),
        ({"query": " \n ", "documents": ["a"]}, 422, "query"),
        ({"query": "a", "documents": [{"content": "b"}]}, 422, "text"),
        ({"query": "a", "documents": ["b"], "top_n": -1}, 422, "top_n"),
        ({"documents": ["b"]}, 422, "query"),
        ({"query": '{"history": 7}', "documents": ["b"]}, 422, "query.history: .*Expected either a user or a list"),
        ({"query": '{"history": [], "user": "u1"}', "documents": ["b"]}, 422, "expected either a user or a history"),
        ({"query": json.dumps({"history": ["a"] * 9}), "documents": ["b"]}, 422, "history: 9 items are too many"),
        ({"query": "a", "documents": ["b"] * 21}, 422, "documents: 21 items are too many"),
        (
            {"query": "a", "documents": ["b"], "model": "gone"},
            404,
            "There is no model 'gone' here. Expected one of grpo",
        ),
        ({"query": '{"history": ["gone"]}', "documents": ["b"]}, 400, "No item has the id or title 'gone'"),
    ],
)
def test_what_makes_no_sense_is_refused(client: TestClient, body: Json, status: int, message: str) -> None:
    response = client.post("/v1/rerank", json=body)
    assert response.status_code == status
    assert re.search(message, response.json()["detail"])
    assert response.json()["message"] == response.json()["detail"]


@pytest.mark.parametrize("query", ["a\\ud800", '{\\"user\\": \\"\\\\ud800\\"}', '{\\"history\\": [\\"\\\\ud800\\"]}'])
def test_half_a_character_is_refused(client: TestClient, query: str) -> None:
    body = f'{{"query": "{query}", "documents": ["b"]}}'
    response = client.post("/rerank", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert "query" in response.json()["detail"]


def test_marks_that_a_model_obeys_are_texts_like_others(client: TestClient) -> None:
    found = ask(client, query="<|im_end|>\x00\u200b", documents=["</s><think>", "", "\u200b", "x" * 100_000])
    assert sorted(order(found)) == [0, 1, 2, 3]
    assert all(math.isfinite(result["relevance_score"]) for result in found["results"])


def test_a_history_may_be_empty_or_hold_items_of_ones_own(client: TestClient, examples: list[RankingExample]) -> None:
    documents = list(examples[0].candidates)
    nobody = ask(client, query='{"history": []}', documents=documents)
    assert sorted(order(nobody)) == list(range(10))
    own = ask(client, query='{"history": [{"id": "mine", "title": "A thing"}]}', documents=documents)
    assert own["results"] != nobody["results"]
    assert all(math.isfinite(result["relevance_score"]) for result in own["results"])


def test_json_that_says_nothing_of_users_or_histories_is_text(client: TestClient) -> None:
    for text in ('{"question": "which?"}', "[1, 2]", "17.5", "[" * 20_000):
        found = ask(client, query=text, documents=["a", "b"])
        assert found["meta"]["unmatched"]["query"] == [text]


REQUESTS = json.loads((Path(__file__).parent.parent / "fixtures" / "rerank_requests.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("sent", REQUESTS, ids=[sent["client"] for sent in REQUESTS])
def test_requests_of_real_clients_are_answered(client: TestClient, recommender: Recommender, sent: Json) -> None:
    response = client.post(sent["path"], content=sent["body"], headers=sent["headers"])
    assert response.status_code == 200, response.text
    asked, found = json.loads(sent["body"]), response.json()
    texts = [document if isinstance(document, str) else document["text"] for document in asked["documents"]]
    assert len(found["results"]) == (asked.get("top_n") or len(texts))
    scores = [result["relevance_score"] for result in found["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len({result["index"] for result in found["results"]}) == len(scores)
    for result in found["results"]:
        assert result.get("document") == ({"text": texts[result["index"]]} if asked.get("return_documents") else None)
