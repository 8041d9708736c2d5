"""The page as Markdown: its words and tables, for places where no HTML is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mllmrec.evaluation.reporting.page import (
    Block,
    Cases,
    Described,
    Figures,
    Origins,
    Page,
    Prose,
    Reasonings,
    Section,
    Sheet,
)

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def to_markdown(page: Page) -> str:
    """All sections; drawings are told in words and pictures are left out."""
    parts = [f"# {_escaped(page.dataset)}", page.subtitle, *page.verdict]
    for section in page.sections:
        parts += _section(section)
    if page.missing:
        parts += ["## Not here yet", "\n".join(f"- {line}" for line in page.missing)]
    return "\n\n".join([*parts, *page.footer]) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"## {_escaped(section.title)}", *([section.lead] if section.lead else [])]
    for block in section.blocks:
        parts += _block(block)
    return parts


def _block(block: Block) -> list[str]:
    match block:
        case Prose():
            return [f"**{block.text}**" if block.tone == "alarm" else block.text]
        case Sheet():
            return _sheet(block)
        case Figures():
            told = [f"- {_escaped(figure.text)}" for figure in block.figures]
            return [*([f"### {_escaped(block.title)}"] if block.title else []), "\n".join(told)]
        case Described():
            return ["\n".join(f"- **{_escaped(poster.title)}**: {_escaped(text)}" for poster, text in block.posters)]
        case Reasonings():
            told = [f"- {_escaped(trace.fate)}, user {trace.user_id}: {_escaped(trace.text)}" for trace in block.traces]
            return [f"### {_escaped(block.title)}", "\n".join(told)]
        case Cases():
            return _table(
                ("user", "target", "rank", "first choice"),
                [
                    (case.user_id, case.target.title, case.rank, case.choices[0].poster.title if case.choices else "")
                    for case in block.cases
                ],
                left=True,
            )
        case Origins():
            return ["\n".join(_origin(facts.title, facts.subtitle, facts.groups) for facts in block.facts)]


def _sheet(block: Sheet) -> list[str]:
    rows = [*_emphasised(block), *block.foot]
    title = [f"### {_escaped(block.table.title)}"] if block.table.title else []
    note = [block.table.note] if block.table.note else []
    return [*title, *_table(block.table.columns, rows, left=block.table.justify == "left"), *note]


def _emphasised(block: Sheet) -> list[tuple[str, ...]]:
    """The rows, what is bold on the page marked so that it survives escaping."""
    return [
        tuple(f"\0{cell}\0" if (number, column) in block.strong else cell for column, cell in enumerate(row))
        for number, row in enumerate(block.table.rows)
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: bool) -> list[str]:
    rule = ["---", *("---" if left else "---:" for _ in columns[1:])]
    lines = [[_cell(column) for column in columns], rule, *([_cell(cell) for cell in row] for row in rows)]
    return ["\n".join(f"| {' | '.join(line)} |" for line in lines)]


def _cell(text: str) -> str:
    bold = text.startswith("\0")
    escaped = _escaped(text.strip("\0")).replace("\n", "<br>")
    return f"**{escaped}**" if bold and escaped else escaped


def _origin(title: str, path: str, groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    told = "; ".join(
        f"{name.lower()}: " + ", ".join(f"{_escaped(key)} {_escaped(value)}" for key, value in pairs)
        for name, pairs in groups
    )
    return f"- **{_escaped(title)}** `{path}`: {told}"


def _escaped(text: str) -> str:
    r"""Text of unknown origin, so that none of it is markup.

    >>> _escaped("a_b | <b>")
    'a\\_b \\| \\<b\\>'
    """
    return _SPECIAL.sub(r"\\\1", text)
