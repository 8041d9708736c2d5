"""`mllmrec audit`: prove after the fact that nothing in a dataset's files gives the answers away.

No stage of this package can leak on purpose: writers of traces aren't shown targets, lists are shuffled for each
example, training refuses lines that hold later targets. But files are copied, edited and brought along from elsewhere,
so the audit trusts none of them. It reads all there are (splits, captions, traces, candidate lists, prompt caches of
the reference implementation), lists in one table what it looked at with the result, and fails on a leak or on a file
whose content it can't vouch for. A known weakness that a file's name declares, such as lists of the reference's draw,
is a warning. Figures are judged at p < 1e-4.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

from mllmrec.data.auditing import caches, copies, lists, rendering, splits, texts
from mllmrec.data.auditing.findings import FAILING, Finding, laid_out
from mllmrec.data.auditing.material import Material, attempt, load
from mllmrec.data.auditing.rendering import PromptCheck
from mllmrec.data.auditing.sharing import Sharing
from mllmrec.data.auditing.target_kinds import TargetKinds
from mllmrec.records import Summary
from mllmrec.settings.data import AuditSettings
from mllmrec.storage.workspace import Workspace


def run(settings: AuditSettings, workspace: Workspace) -> Summary:
    """Check every file of the dataset; `passed` of the summary is false when there is a leak or a wrong file."""
    started = time.monotonic()
    material = load(workspace, settings.dataset, settings.min_inter)
    target_kinds = TargetKinds(material)
    findings = [*_findings(material, target_kinds), *material.wrong]
    verdicts: Counter[str] = Counter(finding.verdict for finding in findings)
    failed = any(verdicts[verdict] for verdict in FAILING)
    named = {"leak": "leak", "wrong": "wrong file", "warning": "warning"}
    counts = ", ".join(
        f"{verdicts[verdict]} {name}{'' if verdicts[verdict] == 1 else 's'}" for verdict, name in named.items()
    )
    return Summary(
        headline=f"{settings.dataset}: {counts} in {time.monotonic() - started:.1f} s. "
        + ("The audit failed; the notes say what to do." if failed else "No leak was found."),
        tables=(laid_out(findings, settings.dataset), *([target_kinds.table()] if target_kinds.rates else [])),
        facts={
            "verdicts": dict(verdicts),
            "findings": [finding.facts() for finding in findings],
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
    yield from copies.check_twins(material)
    yield from texts.check_captions(material)
    yield from texts.check_target_captions(material)
    yield from texts.check_traces(material)
    yield from rendering.check_bare_ids(material)
    num_items = len(material.interactions.catalogue)
    for file in material.candidate_files():
        yield from lists.check_file(material, file)
        yield from prompts.check(file.path.name, file.examples)
        yield from target_kinds.check(file.path.name, file.examples, foreign=file.protocol.foreign)
        if file.protocol.random:
            yield lists.check_same_negatives(file.path.name, file.examples, num_items)
            sharing.add(file.path.name, file.examples, legacy=file.protocol.legacy)
    for path in material.caches():
        if (content := attempt(path, partial(caches.gather, material), material.wrong)) is not None:
            yield from caches.check(material, content)
            yield from lists.check_lists(material, path.name, content.examples, legacy=True)
            yield from target_kinds.check(path.name, content.examples)
            yield lists.check_same_negatives(path.name, content.examples, num_items)
            sharing.add(path.name, content.examples, legacy=True)
    yield from sharing.check()
