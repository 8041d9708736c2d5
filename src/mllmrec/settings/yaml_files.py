"""Reading a YAML file of settings, which may come from a stranger.

An alias stands for all that its anchor holds, so that a few lines may stand for more than any memory holds, or for
themselves; and the parser's time grows with the square of depth. So depth and values are counted while the file is
read, and again with its aliases written out before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mllmrec.errors import SettingsError

MAX_KB, MAX_VALUES, MAX_DEPTH = 256, 10_000, 50
EXPECTED = "Expected a recipe, a few pages of settings"


def read_yaml(path: Path) -> tuple[Any, list[str]]:
    """What a YAML file holds, and a description of each key that stands twice, of which YAML drops the first.

    Raises SettingsError, with the line, for what isn't YAML, is too large, too deep, or contains itself.
    """
    import yaml

    try:
        text = _text(path)
        _require_shallow(path, yaml.parse(text, yaml.SafeLoader))
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None, []
        _require_few_values(path, root)
        repeated = _repeated_keys(root)  # before merges are written into the tree
        return loader.construct_document(root), repeated
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise SettingsError(f"{path}{line}: not valid YAML ({reason}). Mend this line.") from error
    except SettingsError:
        raise
    except ValueError as error:  # of a value that looks like a date or a number and is none
        raise SettingsError(f"{path}: not valid YAML ({error}). Mend this value, or put it in quotes.") from error


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read((MAX_KB << 10) + 1)
    if len(content) > MAX_KB << 10:
        raise SettingsError(f"{path}: more than {MAX_KB} KB. {EXPECTED}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from error


def _require_shallow(path: Path, events: Iterable[Any]) -> None:
    """Refuse a file by the events of its parser, the first that is too deep or one too many."""
    depth = 0
    for number, event in enumerate(events):
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if depth > MAX_DEPTH or number > 2 * MAX_VALUES:
            what = (
                f"lists or blocks more than {MAX_DEPTH} deep"
                if depth > MAX_DEPTH
                else f"more than {MAX_VALUES:,} values"
            )
            raise SettingsError(f"{path}:{event.start_mark.line + 1}: {what}. {EXPECTED}.")


def _require_few_values(path: Path, root: Any) -> None:
    """Refuse a tree of nodes that holds itself, or more than `MAX_VALUES` values with its aliases written out."""
    sizes, within = dict[int, int](), set[int]()

    def size(node: Any) -> int:
        if id(node) in within:
            raise SettingsError(
                f"{path}:{node.start_mark.line + 1}: what the anchor in this line names contains itself by an alias. "
                "Write out what is meant."
            )
        if id(node) not in sizes:
            within.add(id(node))
            sizes[id(node)] = 1 + sum(map(size, _children(node)))
            within.remove(id(node))
        return sizes[id(node)]

    if size(root) > MAX_VALUES:
        raise SettingsError(
            f"{path}: more than {MAX_VALUES:,} values, its aliases written out. {EXPECTED}; write it with fewer "
            "aliases."
        )


def _children(node: Any) -> list[Any]:
    value = node.value if isinstance(node.value, list) else []
    return [part for entry in value for part in (entry if isinstance(entry, tuple) else (entry,))]


def _repeated_keys(node: Any) -> list[str]:
    """Descriptions like `line 7: sft stands twice`, from a tree of YAML nodes."""
    problems, seen = [], set[str]()
    for child in node.value if isinstance(node.value, list) else []:
        key, value = child if isinstance(child, tuple) else (None, child)
        if key is not None:
            if str(key.value) in seen:
                problems.append(f"line {key.start_mark.line + 1}: {key.value} stands twice")
            seen.add(str(key.value))
        problems += _repeated_keys(value)
    return problems
