"""Candidate files as they are ranked: who vouches for one, its protocol, and whether its lists are valid.

A name such as `test_uni9_w10_s42.jsonl` claims how lists were drawn, and the manifest beside the file vouches for it.
Without one anybody may have chosen the negatives, so that figures bear the name `foreign-<stem>`. Where the two
contradict each other nothing is ranked.

`Membership` and `ListRules` say what is wrong with a list, one clause each, for ranking, which refuses, and for the
audit. A list belongs to its split when its user has a line there that holds its history and target, item after item. A
target that stands in its own history is legal: people come back to things.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from mllmrec.data.candidates.legacy import load_candidates
from mllmrec.data.candidates.protocols import CacheName, ListsName, Protocol, protocol_of
from mllmrec.data.sequences import Interactions, Line, by_user
from mllmrec.data.traces import holds
from mllmrec.errors import ArtifactError, DataError
from mllmrec.records import RankingExample, Split, example_id
from mllmrec.settings.data import CandidatesSettings, RetrieveSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import sha256

MAKERS: dict[str, type[CandidatesSettings] | type[RetrieveSettings]] = {
    maker.verb: maker for maker in (CandidatesSettings, RetrieveSettings)
}


def ranked_lists(path: Path, interactions: Interactions, window: int) -> list[RankingExample]:
    """The lists of a candidate file or a cache of the reference; a DataError names the first that can't be ranked."""
    examples = load_candidates(path, interactions, window)
    membership, rules = Membership.of(interactions), ListRules.of(examples, protocol_of(path))
    faults = [
        (number, fault)
        for number, example in enumerate(examples, 1)
        if (fault := membership.fault(example) or rules.fault(example))
    ]
    if faults:
        number, fault = faults[0]
        others = f"; {len(faults) - 1:,} more lists are amiss" if len(faults) > 1 else ""
        raise DataError(
            f"{path}:{number}: the list {fault}{others}. Expected lists of distinct items that the dataset knows, one "
            "for each example of a split. Draw the file again with `mllmrec candidates --overwrite`, or mend the list."
        )
    return examples


def ranked_protocol(path: Path) -> str:
    """The protocol that figures on a file bear: what its name says where a manifest vouches for it, else a foreign one.

    Caches of the reference implementation never have a manifest and are known for what they are.
    """
    return (protocol_of(path) if is_vouched_for(path) else Protocol.of_others(path.stem)).shown


def is_vouched_for(path: Path) -> bool:
    """Whether a manifest says how the lists of a file were drawn, or they are a cache of the reference."""
    return CacheName.parse(path) is not None or Manifest.read(path) is not None


def refuse_contradiction(path: Path) -> None:
    """Raise an ArtifactError where a candidate file isn't what its manifest vouches for."""
    if denied := contradiction(path):
        raise ArtifactError(
            f"{path} contradicts its manifest: {denied}. Expected the lists that were frozen. Put them back, make them "
            "again with --overwrite, or take the manifest away: lists that nothing vouches for are ranked as "
            f"{Protocol.of_others(path.stem).shown}."
        )


def contradiction(path: Path) -> str:
    """What the manifest of a candidate file denies; empty where it agrees, and where there is none."""
    manifest = Manifest.read(path)
    if manifest is None:
        return ""
    known = _vouched_digest(path, manifest)
    if known is None:
        return f"it vouches for no file named {path.name}"
    if known != sha256(path):
        return "the bytes are others"
    named, maker = ListsName.parse(path), MAKERS.get(manifest.verb)
    if named is None or maker is None or not isinstance(manifest.settings, dict):
        return ""
    made = maker.model_construct(
        **{key: value for key, value in manifest.settings.items() if key in maker.model_fields}
    )
    asked = ListsName.asked(made)
    if asked == named:
        return ""
    return f"it tells of {asked.protocol.shown} lists of {asked.split}, window {asked.window}, seed {asked.seed}"


@dataclass(frozen=True, kw_only=True)
class Membership:
    """The users and items that lists may name: `lines` are those of each user in each split.

    An item of the sequences is one even without a title. Where a split has no lines, because its file is missing or
    can't be read, those that a list tells of are taken on trust.
    """

    lines: Mapping[Split, dict[str, list[Line]]]
    items: frozenset[str]

    @classmethod
    def of(cls, interactions: Interactions) -> Membership:
        lines: dict[Split, list[Line]] = {split: interactions.lines(split) for split in get_args(Split)}
        return cls(
            lines={split: by_user(own) for split, own in lines.items()}, items=frozenset(interactions.pool("test"))
        )

    def fault(self, example: RankingExample) -> str:
        """Why a list doesn't belong to the dataset; empty where it does."""
        split, user = example.split, example.user_id
        if split not in get_args(Split):
            return f"is of no split that there is: {split}"
        if self.lines[split] and user not in self.lines[split]:
            return f"is of user {user}, who has no line in the {split} split"
        if not self.on_line(example):
            return f"holds a history and a target that stand on no line of user {user} in the {split} split"
        own = example_id(user, example.target_id, example.history)
        if own != example.example_id:
            return f"has the example id {example.example_id}, and its user, target and history make {own}"
        if unknown := [item for item in example.candidates if item not in self.items]:
            return f"holds the candidate {unknown[0]}, which neither the titles nor the sequences know"
        return ""

    def on_line(self, example: RankingExample) -> bool:
        """Whether the history of a list and its target stand on a line of its user."""
        users, window = self.lines[example.split], (*example.history, example.target_id)
        return not users or any(holds(line.items, window) for line in users.get(example.user_id, ()))


@dataclass(kw_only=True)
class ListRules:
    """What makes a list fit to be ranked among the lists of its file, which are checked one after the other.

    `explicit` says that lists hold their candidates, which examples of the whole catalogue don't; `may_lack_target`
    that a target may be absent, because a retriever can miss it; `single` that a list may be of one item, the first
    one of that retriever.
    """

    explicit: bool
    may_lack_target: bool
    single: bool
    _seen: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, examples: Iterable[RankingExample], protocol: Protocol) -> ListRules:
        """The rules for the lists of a protocol."""
        return cls(
            explicit=any(example.candidates for example in examples),
            may_lack_target=protocol.may_lack_target,
            single=protocol.kind == "rerank",
        )

    def fault(self, example: RankingExample) -> str:
        """Why a list can't be ranked; empty where it can."""
        candidates, key = example.candidates, example.example_id
        again = key in self._seen
        self._seen.add(key)
        if again:
            return f"is the second one of example {key}"
        if not self.explicit:
            return ""
        if not candidates:
            return "is empty, though others of its file aren't"
        if len(set(candidates)) < len(candidates):
            twice = next(item for slot, item in enumerate(candidates) if item in candidates[:slot])
            return f"holds candidate {twice} twice"
        if len(candidates) == 1 and not self.single:
            return f"holds the one candidate {candidates[0]}, so that there is nothing to rank"
        if example.target_id not in candidates:
            return "" if self.may_lack_target else f"lacks its target {example.target_id}"
        return ""


def _vouched_digest(path: Path, manifest: Manifest) -> object:
    """The sha256 that a manifest tells of a file; earlier versions kept it among the details."""
    outputs, details = manifest.outputs, manifest.details
    if isinstance(outputs, dict) and outputs:
        facts = outputs.get(path.name)
        return facts.get("sha256") if isinstance(facts, dict) else None
    return details.get("sha256") if isinstance(details, dict) else None
