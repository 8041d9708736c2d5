"""The real clients of the rerank API, in an environment of their own, ask the real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_models import DATASET, WINDOW

from mllmrec import Recommender
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.records import RankingExample
from mllmrec.storage.workspace import Workspace

PACKAGES = ("cohere", "langchain-cohere", "haystack-ai", "vllm-haystack", "dify-plugin")
CLIENTS = {
    "cohere ClientV2": """
import cohere
found = cohere.ClientV2(api_key=key, base_url=base).rerank(model=model, query=query, documents=documents, top_n=3)
order = [result.index for result in found.results]
""",
    "cohere Client": """
import cohere
found = cohere.Client(api_key=key, base_url=base).rerank(
    model=model, query=query, documents=[{"text": text} for text in documents], top_n=3, return_documents=True
)
order = [documents.index(result.document.text) for result in found.results]
""",
    "langchain": """
from langchain_cohere import CohereRerank
from langchain_core.documents import Document
reranker = CohereRerank(model=model, base_url=base, cohere_api_key=key, top_n=3)
found = reranker.compress_documents([Document(page_content=text) for text in documents], query)
order = [documents.index(document.page_content) for document in found]
""",
    "haystack": """
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.vllm import VLLMRanker
ranker = VLLMRanker(model=model, api_base_url=base + "/v1", api_key=Secret.from_token(key), top_k=3)
found = ranker.run(query=query, documents=[Document(content=text) for text in documents])
order = [documents.index(document.content) for document in found["documents"]]
""",
    "dify": """
from dify_plugin.interfaces.model.openai_compatible.rerank import OAICompatRerankModel
reranker = OAICompatRerankModel.__new__(OAICompatRerankModel)
settings = {"endpoint_url": base + "/v1", "api_key": key}
reranker.validate_credentials(model, settings)
found = reranker._invoke(model=model, credentials=settings, query=query, docs=documents, top_n=3)
order = [document.index for document in found.docs]
""",
}


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with all clients; the test is skipped where they can't be installed."""
    folder = tmp_path_factory.mktemp("clients")
    venv.create(folder, with_pip=True)
    installed = subprocess.run(
        [folder / "bin" / "pip", "install", "-q", *PACKAGES], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"the clients can't be installed: {installed.stderr[-300:]}")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def server(trained: Workspace) -> Iterator[str]:
    """The address of a server of the model grpo, whose key is "secret"."""
    words = ["serve", "--root", trained.root, "--dataset", DATASET, "--tag", "grpo", "--retriever", "markov"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mllmrec", *words, "--device", "cpu", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"MLLMREC_API_KEY": "secret"},
    )
    assert process.stdout is not None
    try:
        said = ""
        while "ready." not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        yield re.findall(r"at (http://\S+) ", said)[0]
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def example(trained: Workspace) -> RankingExample:
    return read_candidates(trained.dataset(DATASET).candidates("test", "uni9", WINDOW, 42))[0]


@pytest.mark.full
@pytest.mark.sockets
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_real_client_gets_the_order_of_the_recommender(
    clients: Path, server: str, trained: Workspace, example: RankingExample, client: str
) -> None:
    recommender = Recommender.load(trained.root, DATASET, "grpo", device="cpu", retriever="markov")
    title = recommender.names.catalogue.title
    asked = {
        "base": server,
        "key": "secret",
        "model": "grpo",
        "query": "\n".join(map(title, example.history)),
        "documents": [*map(title, example.candidates)],
    }
    script = f"import json, sys\nglobals().update(json.loads(sys.argv[1]))\n{CLIENTS[client]}\nprint('order', order)"
    answer = subprocess.run([clients, "-c", script, json.dumps(asked)], capture_output=True, text=True, check=False)
    assert f"order {[item.index for item in recommender.rank(example.history, example.candidates, 3)]}" in (
        answer.stdout
    ), answer.stderr[-2000:]
