"""The page as a value, sections of blocks, and its two renderings: HTML and Markdown.

A block is a table, a row of figures, a paragraph, a case and so on, and the template has a macro for each kind. Titles,
captions and reasoning come from files that nobody vouches for, so everything is escaped, the page may load nothing, and
its one script is allowed by hash. The Markdown holds the words and tables, with a sentence for each drawing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mllmrec.records import Table

Tone = Literal["plain", "note", "alarm"]

SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


@dataclass(frozen=True, kw_only=True)
class Prose:
    """A paragraph; text between backticks is set as code."""

    kind: ClassVar[str] = "prose"
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table that the reader can sort.

    `foot` rows stay beneath whatever the order, `strong` holds the (row, column) of cells in bold, and `words` the
    columns that hold no figures, where the others do.
    """

    kind: ClassVar[str] = "sheet"
    table: Table
    foot: tuple[tuple[str, ...], ...] = ()
    strong: frozenset[tuple[int, int]] = frozenset()
    words: frozenset[int] = frozenset()
    sortable: bool = True


class Key(NamedTuple):
    """One line of a legend: its label, the name of its colour on the page, and its dashes as SVG has them."""

    label: str
    colour: str
    dashes: str = ""


class Drawing(NamedTuple):
    """An SVG element, and the legend that the page sets beside it."""

    svg: str
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing; `text` says in words what is drawn, for those who don't see it."""

    title: str
    drawing: Drawing
    text: str


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """Drawings side by side, as many as fit."""

    kind: ClassVar[str] = "figures"
    figures: tuple[Figure, ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Poster:
    """An item: its title, and a picture as a data URI where there is one."""

    item_id: str
    title: str
    uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class Described:
    """Posters with what is written about each."""

    kind: ClassVar[str] = "described"
    title: str
    posters: tuple[tuple[Poster, str], ...]


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """A trace with what came of it."""

    user_id: str
    target: str
    text: str
    fate: str
    kept: bool | None
    scores: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reasonings:
    kind: ClassVar[str] = "reasonings"
    title: str
    traces: tuple[Reasoning, ...]


@dataclass(frozen=True, kw_only=True)
class ShownCandidate:
    """A candidate of a case: its position, its score in words, and the length of its bar in percent."""

    poster: Poster
    position: str
    score: str
    share: float
    is_target: bool


@dataclass(frozen=True, kw_only=True)
class Case:
    """One user's ranked candidates; `ranks` holds (RUN, rank of the target) for every RUN.

    `thoughts` are those of the model before it answered.
    """

    user_id: str
    rank: str
    hit: bool
    target: Poster
    history: tuple[Poster, ...]
    choices: tuple[ShownCandidate, ...]
    num_left_out: int
    ranks: tuple[tuple[str, str], ...]
    trace: Reasoning | None
    thoughts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cases:
    kind: ClassVar[str] = "cases"
    cases: tuple[Case, ...]
    scores_are: str

    @property
    def unfolded(self) -> frozenset[int]:
        """The first, the middle and the last one: a hit, an ordinary case and a miss, as they come."""
        return frozenset((0, len(self.cases) // 2, len(self.cases) - 1))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What made one artifact, folded away until it is asked for: groups of (name, value)."""

    title: str
    subtitle: str
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Origins:
    kind: ClassVar[str] = "origins"
    facts: tuple[Facts, ...]


Block = Prose | Sheet | FigureRow | Described | Reasonings | Cases | Origins


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the page; `key` is its anchor, `short` its name in the list of contents."""

    key: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""
    short: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The whole: `verdict` is what a hurried reader gets, `missing` what isn't there and the command that makes it.

    `reading` holds (term, what it means on this page).
    """

    title: str
    subtitle: str
    verdict: tuple[str, ...]
    sections: tuple[Section, ...]
    reading: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    footer: tuple[str, ...] = field(default=())


def to_html(page: Page) -> str:
    """One self-contained document."""
    environment = _environment()
    script = _source(environment, "tables.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    facts: Mapping[str, object] = {
        "page": page,
        "style": Markup(_source(environment, "page.css")),
        "script": Markup(script),
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
    }
    return environment.get_template("page.html").render(facts)


def to_markdown(page: Page) -> str:
    """All sections; drawings are described in words and pictures are left out."""
    parts = [f"# {_escaped(page.title)}", page.subtitle, *page.verdict]
    if page.reading:
        parts += ["## How to read this page", "\n".join(f"- **{term}**: {text}" for term, text in page.reading)]
    for section in page.sections:
        parts += _section(section)
    if page.missing:
        parts += ["## Not here yet", "\n".join(f"- {line}" for line in page.missing)]
    return "\n\n".join([*parts, *page.footer]) + "\n"


def with_code(text: str) -> Markup:
    """Escaped text, with what is between backticks set as code.

    >>> with_code("run `a < b` now")
    Markup('run <code>a &lt; b</code> now')
    """
    parts = [escape(part) for part in text.split("`")]
    return Markup().join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def heading(column: str) -> Markup:
    """A column's name; the protocol of a metric is set beneath it, where it leaves the column narrow.

    >>> heading("HR@1/uni9"), heading("tokens in/out")
    (Markup('HR@1<span class="protocol">/uni9</span>'), Markup('tokens in/out'))
    """
    name, slash, protocol = column.partition("/")
    if not slash or not name.startswith(("HR@", "NDCG@", "MRR")):
        return escape(column)
    return Markup('{}<span class="protocol">/{}</span>').format(name, protocol)


def cell_lines(cell: str) -> Sequence[str]:
    """The lines of a cell, at least one."""
    return cell.split("\n")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mllmrec.evaluation.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["with_code"] = with_code
    environment.filters["cell_lines"] = cell_lines
    environment.filters["heading"] = heading
    environment.filters["svg"] = Markup
    return environment


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


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
        case FigureRow():
            lines = [f"- {_escaped(figure.text)}" for figure in block.figures]
            title = [f"### {_escaped(block.title)}"] if block.title else []
            return [*title, *(["\n".join(lines)] if lines else [])]
        case Described():
            return ["\n".join(f"- **{_escaped(poster.title)}**: {_escaped(text)}" for poster, text in block.posters)]
        case Reasonings():
            lines = [
                f"- {_escaped(trace.fate)}, user {trace.user_id}: {_escaped(trace.text)}" for trace in block.traces
            ]
            return [f"### {_escaped(block.title)}", "\n".join(lines)]
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
    listed = "; ".join(
        f"{name.lower()}: " + ", ".join(f"{_escaped(key)} {_escaped(value)}" for key, value in pairs)
        for name, pairs in groups
    )
    return f"- **{_escaped(title)}** `{path}`: {listed}"


def _escaped(text: str) -> str:
    r"""Text of unknown origin, so that none of it is markup.

    >>> _escaped("a_b | <b>")
    'a\\_b \\| \\<b\\>'
    """
    return SPECIAL.sub(r"\\\1", text)
