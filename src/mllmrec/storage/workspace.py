"""The paths of a workspace, and how its files are read and written.

`Workspace` computes every path. Files are replaced whole (written beside, then renamed). An artifact is finished
exactly when its manifest exists, which is why a manifest is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mllmrec.errors import ArtifactError, DataError

ID_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_DRAFT = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.tmp")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class Workspace:
    """All paths under one root, in the layout of the reference implementation.

    A path is only computed here, never created; `data` folders may also be spelt the reference's other way
    (`data/<dataset>_captions.json` beside `data/<dataset>/<dataset>_captions.json`), which `existing` resolves.
    """

    def __init__(self, root: str | Path = ".") -> None:
        self.root = Path(root).expanduser()

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def dataset(self, dataset: str) -> Path:
        return self.root / "data" / named("dataset", dataset)

    def split(self, dataset: str, split: str) -> Path:
        return self.dataset(dataset) / f"{split}.tsv"

    def titles(self, dataset: str) -> Path:
        return self._either(dataset, "titles.csv")

    def pairs(self, dataset: str) -> Path:
        return self._either(dataset, "pairs.csv")

    def raw_ids(self, dataset: str) -> Path:
        """The raw ids of those ids that had to be rewritten; the file is missing where none had to be."""
        return self._either(dataset, "ids.csv")

    def captions(self, dataset: str) -> Path:
        return self._either(dataset, "captions.json")

    def pseudo_cot(self, dataset: str) -> Path:
        return self._either(dataset, "pseudo-cot.json")

    def refined_cot(self, dataset: str) -> Path:
        return self._either(dataset, "deepseek_cot.json")

    def assessed_cot(self, dataset: str) -> Path:
        return self._either(dataset, "assessed_cot.json")

    def images(self, dataset: str) -> Path:
        return self.dataset(dataset) / "images"

    def card(self, dataset: str) -> Path:
        return self.dataset(dataset) / "card.json"

    def ceiling(self, dataset: str) -> Path:
        """The best reachable metrics, where they are known, as in the made-up world."""
        return self.dataset(dataset) / "ceiling.json"

    def processed(self, dataset: str) -> Path:
        return self.dataset(dataset) / "processed"

    def candidates(self, dataset: str, split: str, protocol: str, window: int, seed: int) -> Path:
        return self.processed(dataset) / f"{split}_{protocol}_w{window}_s{seed}.jsonl"

    def checkpoint(self, dataset: str, tag: str) -> Path:
        return self.root / "checkpoints" / named("dataset", dataset) / named("tag", tag)

    def results(self, dataset: str) -> Path:
        return self.root / "result" / named("dataset", dataset)

    def run(self, dataset: str, name: str, candidates: str) -> Path:
        return self.results(dataset) / named("run", name) / candidates

    def model(self, name: str) -> Path | None:
        """The folder of a backbone given by path or by its name under the root; None when it must be a hub id."""
        for path in (self.root / name, Path(name).expanduser()):
            if path.is_dir():
                return path
        return None

    def _either(self, dataset: str, suffix: str) -> Path:
        """The path inside the dataset's folder, unless only the reference's spelling beside the folder exists."""
        inside = self.dataset(dataset) / f"{dataset}_{suffix}"
        beside = self.root / "data" / f"{dataset}_{suffix}"
        return beside if beside.exists() and not inside.exists() else inside


def named(kind: str, name: str) -> str:
    """`name`, when it is fit to be one path component; a DataError otherwise."""
    if not ID_PATTERN.fullmatch(name):
        raise DataError(
            f"The {kind} {name!r} can't be used as a name: expected letters, digits, '.', '_' and '-', "
            "not starting with a dot. Choose another name."
        )
    return name


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a draft beside `path` that replaces it when the block succeeds and is removed when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open(mode, encoding=None if "b" in mode else "utf-8", newline=None if "b" in mode else "") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # the error of a full disk doesn't name the file
        raise
    finally:
        draft.unlink(missing_ok=True)


def sweep_drafts(paths: Iterable[Path]) -> None:
    """Remove the drafts of these files that dead processes left beside them."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, written in names.items():
        if folder.is_dir():
            for path in folder.iterdir():
                unlink_dead_draft(path, written)


def unlink_dead_draft(path: Path, names: Container[str] | None) -> None:
    """Remove a draft of one of the `names`, or of any, whose process is dead."""
    draft = _DRAFT.fullmatch(path.name)
    if draft is not None and (names is None or draft["name"] in names) and not _is_alive(int(draft["process"])):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file whole; drafts of it that killed processes left go."""
    with replacing(path) as file:
        file.write(text)
    sweep_drafts([path])


def write_json(path: Path, value: object, indent: int | None = 2) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write one JSON object a line and return how many."""
    count = 0
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    sweep_drafts([path])
    return count


def read_json(path: Path) -> Any:
    """The value of a JSON file; a DataError names the line where it breaks.

    Numbers of thousands of digits and lists in lists without end are no content of ours, and end in a DataError too.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}). Mend the file, or make it again with --overwrite."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} holds what can't be read ({error}). Mend the file, or make it again with --overwrite."
        ) from error


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, one at a time; a DataError names file:line."""
    require(path, "A file of records", "Mend the path, or make the file again.")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}:{number}: not valid JSON ({error.msg}). Make the file again with --overwrite."
                ) from error
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: not UTF-8 text ({error.reason}). Make the file again with --overwrite."
                ) from error
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}:{number}: can't be read ({error}). Make the file again with --overwrite."
                ) from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}.")
            yield row


def partial(artifact: Path) -> Path:
    """The working log that lies beside an artifact until it is complete."""
    return artifact.with_name(f"{artifact.name}.partial.jsonl")


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require(path: Path, what: str, remedy: str) -> Path:
    """`path` when it exists, else an ArtifactError that says which command makes it."""
    if not path.exists():
        raise ArtifactError(f"{what} is missing: {path} does not exist. {remedy}")
    return path


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
