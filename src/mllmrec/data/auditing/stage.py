"""`mllmrec audit`: prove after the fact that nothing in a dataset's files gives the answers away.

No stage of this package can leak on purpose: a writer of traces isn't shown targets, lists are shuffled for each
example, training refuses lines that hold later targets. But files are copied, edited and brought along from elsewhere,
so the audit trusts none of them. It reads all there are (splits, captions, traces, candidate lists, prompt caches of
the reference implementation), tells in one table what it looked at and what it found, and fails on a leak or on a file
whose content it can't vouch for. What is known to be weak but says so by its name, such as lists of the reference's
draw, is a warning. Figures are judged at p < 1e-4.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

from mllmrec.data.auditing import (
    caches,
    captions,
    copies,
    lists,
    splits,
    traces,
)
from mllmrec.data.auditing import (
    captions as target_captions,
)
from mllmrec.data.auditing import (
    copies as twins,
)
from mllmrec.data.auditing import (
    lists as same_negatives,
)
from mllmrec.data.auditing import (
    rendering as bare_ids,
)
from mllmrec.data.auditing.findings import FAILING, Finding, laid_out
from mllmrec.data.auditing.material import Material, attempt, load
from mllmrec.data.auditing.rendering import PromptCheck
from mllmrec.data.auditing.sharing import Sharing
from mllmrec.data.auditing.target_kinds import TargetKinds
from mllmrec.records import Summary
from mllmrec.settings.data import AuditSettings
from mllmrec.storage.workspace import Workspace


def run(settings: AuditSettings, workspace: Workspace) -> Summary:
    """Check every file of the dataset; the summary has not passed when there is a leak."""
    started = time.monotonic()
    material = load(workspace, settings.dataset, settings.min_inter)
    target_kinds = TargetKinds(material)
    findings = [*_findings(material, target_kinds), *material.wrong]
    verdicts: Counter[str] = Counter(finding.verdict for finding in findings)
    failed = any(verdicts[verdict] for verdict in FAILING)
    named = {"leak": "leak", "wrong": "wrong file", "warning": "warning"}
    counts = ", ".join(f"{verdicts[each]} {name}{'' if verdicts[each] == 1 else 's'}" for each, name in named.items())
    return Summary(
        headline=f"{settings.dataset}: {counts} in {time.monotonic() - started:.1f} s. "
        + ("The audit failed; the notes say what to do." if failed else "No leak was found."),
        tables=(laid_out(findings, settings.dataset), *([target_kinds.table()] if target_kinds.rates else [])),
        facts={
            "verdicts": dict(verdicts),
            "findings": [asdict(finding) for finding in findings],
            "hit_rates": target_kinds.rates,
        },
        passed=not failed,
    )


def _findings(material: Material, target_kinds: TargetKinds) -> Iterator[Finding]:
    """All checks, each file read once."""
    prompts, sharing = PromptCheck(material), Sharing()
    yield from splits.check(material)
    yield from copies.check_copies(material)
    yield from prompts.splits()
    yield from twins.check_twins(material)
    yield from captions.check_captions(material)
    yield from target_captions.check_target_captions(material)
    yield from traces.check(material)
    yield from bare_ids.check(material)
    num_items = len(material.interactions.catalogue)
    for file in material.candidate_files():
        yield from lists.check_file(material, file)
        yield from prompts.check(file.path.name, file.examples)
        yield from target_kinds.check(file.path.name, file.examples, foreign=file.protocol.foreign)
        if file.protocol.random:
            yield same_negatives.check_same_negatives(file.path.name, file.examples, num_items)
            sharing.add(file.path.name, file.examples, legacy=file.protocol.legacy)
    for path in material.caches():
        if (content := attempt(path, partial(caches.gather, material), material.wrong)) is not None:
            yield from caches.check(material, content)
            yield from lists.check_lists(material, path.name, content.examples, legacy=True)
            yield from target_kinds.check(path.name, content.examples)
            yield same_negatives.check_same_negatives(path.name, content.examples, num_items)
            sharing.add(path.name, content.examples, legacy=True)
    yield from sharing.check()
