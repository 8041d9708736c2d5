"""Candidate files as they are ranked: who vouches for one, what its lists are called, whether they fit the dataset.

A name such as `test_uni9_w10_s42.jsonl` is a claim about how lists were drawn. The manifest beside the file vouches for
it. Without one anybody may have chosen the negatives, so that figures bear the name `foreign-<stem>`; and where the
two contradict each other nothing is ranked.
"""

from __future__ import annotations

from pathlib import Path

from mllmrec.artifacts import sha256
from mllmrec.data.legacy import CACHE_NAME, load_candidates
from mllmrec.data.list_faults import Form, Membership
from mllmrec.data.protocols import FOREIGN, ListsName, lists_named, protocol_asked_for, protocol_of
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError, DataError
from mllmrec.manifests import Manifest
from mllmrec.records import RankingExample
from mllmrec.settings.candidates import CandidatesSettings, RetrieveSettings

MAKERS: dict[str, type[CandidatesSettings] | type[RetrieveSettings]] = {
    maker.verb: maker for maker in (CandidatesSettings, RetrieveSettings)
}


def ranked_lists(path: Path, interactions: Interactions, window: int) -> list[RankingExample]:
    """The lists of a candidate file or a cache of the reference; a DataError names the first that can't be ranked."""
    examples = load_candidates(path, interactions, window)
    membership, form = Membership.of(interactions), Form.of(examples, protocol_of(path))
    faults = [
        (number, fault)
        for number, example in enumerate(examples, 1)
        if (fault := membership.fault(example) or form.fault(example))
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
    if CACHE_NAME.fullmatch(path.name) or Manifest.read(path) is not None:
        return protocol_of(path)
    return f"{FOREIGN}{path.stem}"


def refuse_contradiction(path: Path) -> None:
    """Raise an ArtifactError where a candidate file isn't what its manifest vouches for."""
    if denied := contradiction(path):
        raise ArtifactError(
            f"{path} contradicts its manifest: {denied}. Expected the lists that were frozen. Put them back, make them "
            "again with --overwrite, or take the manifest away: lists that nothing vouches for are ranked as "
            f"{FOREIGN}{path.stem}."
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
    named, maker = lists_named(path), MAKERS.get(manifest.verb)
    if named is None or maker is None or not isinstance(manifest.settings, dict):
        return ""
    made = maker.model_construct(
        **{key: value for key, value in manifest.settings.items() if key in maker.model_fields}
    )
    told = ListsName(made.split, protocol_asked_for(made), made.min_inter, made.seed)
    if told == named:
        return ""
    return f"it tells of {told.protocol.shown} lists of {told.split}, window {told.window}, seed {told.seed}"


def _vouched_digest(path: Path, manifest: Manifest) -> object:
    """The sha256 that a manifest tells of a file; earlier versions kept it among the details."""
    outputs, details = manifest.outputs, manifest.details
    if isinstance(outputs, dict) and outputs:
        facts = outputs.get(path.name)
        return facts.get("sha256") if isinstance(facts, dict) else None
    return details.get("sha256") if isinstance(details, dict) else None
