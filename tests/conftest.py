"""Shared fixtures. Unit tests can't open sockets; real data is found through MLLMREC_REAL_DATA."""

from __future__ import annotations

import builtins
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import hypothesis
import pytest
from small_models import copy_of, make_backbone, make_workspace, train_all
from small_vision_models import make_text_model, make_vision_model

from mllmrec.storage.workspace import Workspace

# Models here are so small that a second thread only waits for the first one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


# A busy machine is no fault of what is tested.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
# A shell that starts a job in the background has it ignore Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def all_of_some(values: Iterable[object]) -> bool:
    """`all`, but for nothing at all it is no proof: what a test looks through has to be there."""
    values = list(values)
    assert values, "all() of nothing is true whatever the program does; look at what was to be looked through"
    return builtins.all(values)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In test modules `all` asks for at least one value."""
    for item in items:
        if isinstance(item, pytest.Function):
            vars(item.module).setdefault("all", all_of_some)


@pytest.fixture(autouse=True)
def no_sockets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Block sockets unless the test is marked `sockets` or `slow`."""
    if any(request.node.get_closest_marker(name) for name in ("sockets", "slow")):
        yield
        return

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a unit test tried to open a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; the test is skipped where it isn't there."""
    folder = os.environ.get("MLLMREC_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MLLMREC_REAL_DATA names no folder of real data")
    return Path(folder)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The made-up world with frozen candidates and the backbone `tiny` (random weights). To be read, not written."""
    workspace = make_workspace(tmp_path_factory.mktemp("toy"))
    make_backbone(workspace)
    return workspace


@pytest.fixture
def toy_copy(toy: Workspace, tmp_path: Path) -> Workspace:
    """`toy` of one test's own."""
    return copy_of(toy, tmp_path / "workspace")


@pytest.fixture(scope="session")
def trained(toy: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`toy` with the checkpoints full (all weights), sft (LoRA on full), sft-merged and grpo. To be read only."""
    workspace = copy_of(toy, tmp_path_factory.mktemp("trained") / "workspace")
    train_all(workspace)
    return workspace


@pytest.fixture
def trained_copy(trained: Workspace, tmp_path: Path) -> Workspace:
    """`trained` of one test's own."""
    return copy_of(trained, tmp_path / "workspace")


@pytest.fixture(scope="session")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: a Qwen3-VL that tells the colours of pictures. To be read only."""
    return make_vision_model(tmp_path_factory.mktemp("vision") / "vision")


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: a Qwen3 that has learnt `small_vision_models.LESSONS` by heart. To be read only."""
    return make_text_model(tmp_path_factory.mktemp("text") / "text")
