"""The paths of a workspace, and how its files are read and written.

`Workspace` and its `DatasetFiles` compute every path. Files are replaced whole (written beside, then renamed). An
artifact is finished exactly when its manifest exists, which is why a manifest is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mllmrec.errors import ArtifactError, DataError

ID_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_DRAFT = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.tmp")
SPLITS = ("train", "valid", "test")
SETTLED_SECONDS = 2.0
"""A file that was changed this recently may change again within the same time stamp, so its hash isn't kept."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".avif", ".tif", ".tiff")
_known: dict[tuple[int, int, int, int, int], str] = {}


class Workspace:
    """All paths under one root, in the layout of the reference implementation.

    A path is only computed here, never created.
    """

    def __init__(self, root: str | Path = ".") -> None:
        self.root = Path(root).expanduser()

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def dataset(self, name: str) -> DatasetFiles:
        return DatasetFiles(self, name)

    def checkpoint(self, dataset: str, tag: str) -> Path:
        return self.root / "checkpoints" / named("dataset", dataset) / named("tag", tag)

    def model(self, name: str) -> Path | None:
        """The folder of a backbone given by path or by its name under the root; None when it must be a hub id."""
        for path in (self.root / name, Path(name).expanduser()):
            if path.is_dir():
                return path
        return None


@dataclass(frozen=True)
class DatasetFiles:
    """The files of the dataset `name` in `workspace`, its RUNs included; they may be missing.

    A file may also be spelt the reference's other way: `data/<dataset>_captions.json` beside the dataset's folder in
    place of `data/<dataset>/<dataset>_captions.json`. Raises DataError for a name that is fit for no folder.
    """

    workspace: Workspace
    name: str

    @classmethod
    def of(cls, path: Path) -> DatasetFiles | None:
        """The dataset of a file ROOT/data/NAME/processed/FILE or a RUN ROOT/result/NAME/MODEL/RUN; None elsewhere.

        A link is followed only where it doesn't lie in a workspace itself.

        >>> DatasetFiles.of(Path("/w/result/shop/grpo/test_uni9_w10_s42")).name
        'shop'
        >>> DatasetFiles.of(Path("/w/lists.jsonl")) is None
        True
        """
        for whole in (path.absolute(), path.resolve()):
            if len(whole.parents) > 3 and whole.parents[2].name in ("data", "result"):
                return cls(Workspace(whole.parents[3]), whole.parents[1].name)
        return None

    @property
    def folder(self) -> Path:
        return self.workspace.root / "data" / named("dataset", self.name)

    def split(self, split: str) -> Path:
        """The lines of a split."""
        return self.folder / f"{split}.tsv"

    @property
    def titles(self) -> Path:
        return self._either("titles.csv")

    @property
    def pairs(self) -> Path:
        """The interactions with their times."""
        return self._either("pairs.csv")

    @property
    def raw_ids(self) -> Path:
        """The raw ids of those ids that had to be rewritten; the file is missing where none had to be."""
        return self._either("ids.csv")

    @property
    def captions(self) -> Path:
        return self._either("captions.json")

    @property
    def pseudo_cot(self) -> Path:
        return self._either("pseudo-cot.json")

    @property
    def refined_cot(self) -> Path:
        return self._either("deepseek_cot.json")

    @property
    def assessed_cot(self) -> Path:
        return self._either("assessed_cot.json")

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def card(self) -> Path:
        return self.folder / "card.json"

    @property
    def ceiling(self) -> Path:
        """The best reachable metrics, where they are known, as in the made-up world."""
        return self.folder / "ceiling.json"

    @property
    def processed(self) -> Path:
        """The folder of candidate files."""
        return self.folder / "processed"

    def candidates(self, split: str, protocol: str, window: int, seed: int) -> Path:
        return self.processed / f"{split}_{protocol}_w{window}_s{seed}.jsonl"

    @property
    def results(self) -> Path:
        """The folder of all RUNs and the report."""
        return self.workspace.root / "result" / named("dataset", self.name)

    def run(self, name: str, candidates: str) -> Path:
        """The RUN of one ranker on one candidate file, given by its stem."""
        return self.results / named("run", name) / candidates

    def source_hashes(self, splits: Sequence[str] = SPLITS) -> dict[str, str]:
        """sha256 by role (`titles` and the names of splits) of the files that lists are made from and that exist."""
        files = {"titles": self.titles, **{split: self.split(split) for split in splits}}
        return {role: cached_sha256(path) for role, path in files.items() if path.exists()}

    def _either(self, suffix: str) -> Path:
        """The path inside the dataset's folder, unless only the reference's spelling beside the folder exists."""
        inside = self.folder / f"{self.name}_{suffix}"
        beside = self.folder.parent / f"{self.name}_{suffix}"
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


def cached_sha256(path: Path) -> str:
    """Hex digest of a file's bytes; this process reads a file again only after it was changed or replaced."""
    facts = path.stat()
    key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    if key in _known:
        return _known[key]
    digest = sha256(path)
    if time.time() - max(facts.st_mtime, facts.st_ctime) > SETTLED_SECONDS:
        _known[key] = digest
    return digest


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
