"""A recipe: one YAML file with a block of settings for each verb.

    dataset: movielens          # shared by all blocks, as are root and seed
    sft: {tag: sft, epochs: 3}
    scorers:                    # blocks of sft that run before assess: the models that measure what a trace is worth
      - {tag: fold-1, fold: 1/2}
      - {tag: fold-2, fold: 2/2}
    evaluate:                   # a verb that runs several times has a list of blocks
      - {tag: sft}
      - {tag: grpo}

`mllmrec run RECIPE` runs the blocks in the order of the pipeline; `mllmrec sft --config RECIPE` takes one verb's
block as defaults for its flags. A recipe is named by path, or by the name of one that ships with the program.

The file may come from a stranger. An alias stands for all that its anchor holds, so that a few lines may stand for more
than any memory holds, or for themselves; and the parser's time grows with the square of depth. So depth and values are
counted while the file is read, and again with its aliases written out before anything is made of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mllmrec.errors import SettingsError
from mllmrec.settings.base import StageSettings, explain
from mllmrec.stages import STAGES

SHARED = ("dataset", "root", "seed", "overwrite")
MAX_KB, MAX_VALUES, MAX_DEPTH = 256, 10_000, 50
EXPECTED = "Expected a recipe, a few pages of settings"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of each verb, in the order of the pipeline."""

    path: Path
    shared: Mapping[str, Any]
    blocks: Mapping[str, list[dict[str, Any]]]

    def block(self, verb: str) -> dict[str, Any]:
        """The one block of a verb, shared keys included; empty when the recipe has none."""
        blocks = self.blocks.get(verb, [])
        if len(blocks) > 1:
            raise SettingsError(
                f"{self.path} has {len(blocks)} blocks for {verb}, and --config needs one. Give the flags on the "
                "command line, or use `mllmrec run`."
            )
        return self._with_shared(verb, blocks[0] if blocks else {})

    def stages(self, **overrides: Any) -> list[StageSettings]:
        """Validated settings of every block, in order; `overrides` replace shared keys."""
        stages, errors = self.validated(overrides)
        if errors:
            raise SettingsError(f"{self.path} has mistakes: {'; '.join(errors)}. Mend the file and start again.")
        return stages

    def validated(self, overrides: Mapping[str, Any]) -> tuple[list[StageSettings], list[str]]:
        """The settings of the valid blocks, and the errors of the others."""
        stages, errors = [], []
        for verb, blocks in self.blocks.items():
            settings = STAGES[verb].settings
            for number, block in enumerate(blocks, 1):
                where = f"{verb}[{number}]" if len(blocks) > 1 else verb
                try:
                    stages.append(settings.model_validate(self._with_shared(verb, block, overrides)))
                except ValidationError as error:
                    errors.append(f"{where}: {explain(error, settings).rstrip('.')}")
        return stages, errors

    def _with_shared(
        self, verb: str, block: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        fields = STAGES[verb].settings.model_fields if verb in STAGES else {}
        shared = {**self.shared, **(overrides or {})}
        return {**{key: value for key, value in shared.items() if key in fields}, **block}


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe by path or shipped name; a SettingsError lists every error of the file at once."""
    path = _find(name)
    content, errors = read_yaml(path)
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected blocks of settings by verb, found {type(content).__name__}.")
    content = {str(key).replace("_", "-"): value for key, value in content.items()}
    errors += [f"{key} is no verb or shared key{_near(key)}" for key in content if key not in (*STAGES, *SHARED)]
    given = [verb for verb in STAGES if verb in content]
    errors += [f"{verb} isn't a block of settings" for verb in given if not _is_block(content[verb])]
    blocks = {verb: _as_list(content[verb]) for verb in given if _is_block(content[verb])}
    recipe = Recipe(path=path, shared={key: content[key] for key in SHARED if key in content}, blocks=blocks)
    errors += recipe.validated({} if "dataset" in content else {"dataset": "unnamed"})[1]
    if errors:
        raise SettingsError(f"{path} has mistakes: {'; '.join(errors)}. Mend the file and start again.")
    return recipe


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    folder = resources.files("mllmrec") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _find(name: str | Path) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = Path(str(resources.files("mllmrec") / "recipes" / f"{path.name.removesuffix('.yaml')}.yaml"))
    if shipped.is_file() and (path.parent == Path(".") or path.parent.name == "recipes"):
        return shipped
    raise SettingsError(
        f"There is no recipe {str(name)!r}: no such file, and the shipped recipes are {', '.join(shipped_recipes())}."
    )


def _is_block(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, dict)
        or (isinstance(value, list) and all(isinstance(v, dict) for v in value))
    )


def _as_list(value: Any) -> list[dict[str, Any]]:
    blocks = value if isinstance(value, list) else [value or {}]
    return [{str(key).replace("-", "_"): entry for key, entry in block.items()} for block in blocks]


def _near(key: Any) -> str:
    close = difflib.get_close_matches(str(key), [*STAGES, *SHARED], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


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
