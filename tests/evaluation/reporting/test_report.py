"""The page tells what the files hold, nothing in a file becomes markup, and what isn't there is named."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import math
import re
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from handmade import vouch_again
from planted import probed
from report_world import (
    DATASET,
    HOSTILE,
    LOUD,
    MODELS,
    USERS,
    make_data,
    make_report_world,
    make_run,
    picture_of,
    rows_of,
)

from mllmrec.data.sequences import read_catalogue
from mllmrec.errors import ArtifactError, SettingsError
from mllmrec.evaluation.ranking.runs import Run
from mllmrec.evaluation.reporting import (
    costs,
    runs,
)
from mllmrec.evaluation.reporting.cases import Posters, cases_section, draw_cases
from mllmrec.evaluation.reporting.guide import how_to_read
from mllmrec.evaluation.reporting.ladder import measure, overview_section, verdict
from mllmrec.evaluation.reporting.ladder_figures import groups_section, ladder_figures
from mllmrec.evaluation.reporting.material import audit_section
from mllmrec.evaluation.reporting.page import Cases, FigureRow, Prose, Sheet
from mllmrec.evaluation.reporting.probes import probes_section
from mllmrec.evaluation.reporting.runs import Ladder, read_ladders
from mllmrec.evaluation.reporting.stage import run
from mllmrec.evaluation.reporting.training import training_section
from mllmrec.settings.base import validated
from mllmrec.settings.evaluation import BaselineFitSettings, ProbeSettings, ReportSettings
from mllmrec.storage.manifests import Manifest, write_manifest
from mllmrec.storage.workspace import Workspace, read_json, write_json, write_jsonl, write_text

RUN = "test_uni9_w5_s42"


class Document(html.parser.HTMLParser):
    """Elements with their attributes, tables as rows of texts, and all text outside style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self.text, self.open = "", Counter[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.open[tag] += 1
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "small":
            self.tables[-1][-1][-1] += "\n"

    def handle_endtag(self, tag: str) -> None:
        self.open[tag] -= 1

    def handle_data(self, data: str) -> None:
        if self.open["script"] or self.open["style"]:
            return
        self.text += data
        if self.open["td"] or self.open["th"]:
            self.tables[-1][-1][-1] += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def table(self, *columns: str) -> list[list[str]]:
        """The first table whose header holds these columns."""
        return next(rows for rows in self.tables if set(columns) <= set(rows[0]))


def write(workspace: Workspace, dataset: str = DATASET, **knobs: Any) -> tuple[Any, str, str]:
    """The summary, the HTML and the Markdown of a report."""
    settings = ReportSettings(dataset=dataset, root=str(workspace.root), **knobs)
    summary = run(settings, workspace, picture_of)
    page = workspace.dataset(dataset).results / "report.html"
    return summary, page.read_text(encoding="utf-8"), page.with_suffix(".md").read_text(encoding="utf-8")


def first_ladder(workspace: Workspace, metric: str = "NDCG@3") -> Ladder:
    return read_ladders(workspace, DATASET, metric)[0][0]


def posters(workspace: Workspace) -> Posters:
    return Posters(read_catalogue(workspace.dataset(DATASET).titles), picture_of)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_report_world(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def written(world: Workspace) -> tuple[Any, str, str]:
    return write(world)


@pytest.fixture(scope="module")
def page(written: tuple[Any, str, str]) -> Document:
    return Document(written[1])


@pytest.fixture
def world_copy(world: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(world.root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def test_everything_that_is_there_is_shown(written: tuple[Any, str, str]) -> None:
    summary = written[0]
    sections = ["groups", "training", "cases", "data", "audit", "captions", "traces", "costs", "settings"]
    ladders = [f"ladder-{RUN}-{USERS}", f"ladder-test_uni19_w5_s42-{USERS}"]
    assert summary.facts["sections"] == ["overview", *ladders, *sections]
    assert [line.partition(":")[0] for line in summary.facts["missing"]] == ["Probes"]
    assert summary.warnings == ()


def test_a_table_holds_one_protocol_and_every_metric_names_its_own(page: Document) -> None:
    overview, *tables = page.tables
    assert overview[0] == ["recommender", "NDCG@3/uni9", "NDCG@3/uni19"]
    told = [{column.partition("/")[2] for column in rows[0] if re.match(r"(HR|NDCG)@|MRR", column)} for rows in tables]
    assert [protocols for protocols in told if protocols] == [{"uni9"}, {"uni9"}, {"uni9"}, {"uni19"}, {"uni19"}]


def test_the_ladder_climbs_from_the_weakest_baseline_to_the_last_model(world: Workspace, page: Document) -> None:
    rows = page.table("run", "HR@1/uni9")
    labels = [row[0] for row in rows[1:]]
    assert labels[3:] == [*MODELS, "chance"]
    values = [read_json(world.dataset(DATASET).run(name, RUN) / "metrics.json")["metrics"] for name in labels[:-1]]
    assert [each["NDCG@3"]["value"] for each in values[:3]] == sorted(each["NDCG@3"]["value"] for each in values[:3])
    for row, metrics in zip(rows[1:-1], values, strict=True):
        for column, cell in zip(rows[0][1:], row[1:], strict=True):
            told = metrics[column.partition("/")[0]]
            assert cell == f"{told['value']:.3f}\n{told['low']:.3f}–{told['high']:.3f}"
    assert rows[-1][1] == "0.100"


def test_the_overview_has_a_row_for_each_recommender_and_a_column_for_each_protocol(
    world: Workspace, page: Document
) -> None:
    rows = {row[0]: row[1:] for row in page.tables[0][1:]}
    assert set(rows) == {path.name for path in world.dataset(DATASET).results.iterdir() if path.is_dir()} | {"chance"}
    for name, cells in rows.items():
        for protocol, cell in zip((RUN, "test_uni19_w5_s42"), cells, strict=True):
            path = world.dataset(DATASET).run(name, protocol) / "metrics.json"
            told = read_json(path)["metrics"]["NDCG@3"] if path.exists() else None
            expected = f"{told['value']:.3f}\n{told['low']:.3f}–{told['high']:.3f}" if told else ""
            assert cell == (("0.213" if protocol == RUN else "0.107") if name == "chance" else expected)
    assert rows["sft"][0]
    assert not rows["sft"][1]


def test_the_chooser_of_negatives_is_not_applicable_in_the_overview() -> None:
    def ladder(protocol: str, name: str) -> runs.Ladder:
        facts = {"name": name, "method": "score", "protocol": protocol, "candidates": protocol, "num_users": 9}
        facts |= {"metrics": {"MRR": {"value": 0.5, "low": 0.4, "high": 0.6}}, "chance": {"MRR": 0.1}}
        manifest = Manifest(verb="baselines", settings={}, result_settings={}, inputs={})
        rung = runs.Rung(run=Run(folder=Path(protocol), facts=facts), manifest=manifest)
        return runs.Ladder(rungs=(rung,), metric="MRR")

    section = overview_section([ladder("uni9", "itemknn-full"), ladder("hard19-itemknn", "markov")])
    assert section is not None
    [sheet] = section.blocks
    assert isinstance(sheet, Sheet)
    assert sheet.table.rows == (
        ("itemknn-full", "0.500\n0.400–0.600", "n/a"),
        ("markov", "", "0.500\n0.400–0.600"),
    )
    assert overview_section([ladder("uni9", "markov")]) is None


def test_differences_are_those_of_the_rankings(world: Workspace, page: Document) -> None:
    rows = {row[0]: row for row in page.table("step", "MRR/uni9")[1:]}
    tiny, sft = (
        [1 / row["rank"] for row in rows_of(world.dataset(DATASET).run(name, RUN) / "rankings.jsonl")]
        for name in ("tiny", "sft")
    )
    difference = math.fsum(sft) / len(sft) - math.fsum(tiny) / len(tiny)
    assert rows["sft\n− tiny"][4].startswith(f"+{difference:.3f}\n+")
    assert rows["grpo\n− sft"][1:6] == ["0.000\n0.000 to 0.000"] * 4 + ["1.000"]


def test_the_verdict_tells_the_last_model_against_what_it_has_to_beat(world: Workspace) -> None:
    told = verdict(measure(first_ladder(world), 42))
    assert told[0].startswith("`grpo-cot` reaches NDCG@3/uni9 = ")
    assert told[0].endswith(" over 60 users. Chance is 0.213.")
    assert re.match(r"Against the model below it, `grpo`: better by \+0\.\d+ \[\+", told[2])


def test_the_verdict_says_when_nothing_changed_and_when_something_is_worse(world: Workspace) -> None:
    rungs = {rung.label: rung for rung in first_ladder(world).rungs}
    same = Ladder(rungs=(rungs["random"], rungs["sft"], rungs["grpo"]), metric="MRR")
    assert verdict(measure(same, 42))[2] == "Against the model below it, `sft`: the same for every user."
    worse = Ladder(rungs=(rungs["grpo-cot"], rungs["tiny"]), metric="MRR")
    assert verdict(measure(worse, 42))[1].startswith("Against the model below it, `grpo-cot`: worse by −0.")


def test_no_title_caption_or_trace_becomes_markup(page: Document) -> None:
    assert len(page.named("script")) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert {"x"} & {attributes.get("src") for attributes in page.named("img")} == set()
    assert HOSTILE in page.text
    assert LOUD in page.text
    assert "</article><script>alert(4)</script>" in page.text


def test_the_page_loads_nothing_and_allows_its_own_script_alone(written: tuple[Any, str, str], page: Document) -> None:
    text = written[1]
    links = [attributes[name] for _, attributes in page.elements for name in ("src", "href") if name in attributes]
    assert links
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    assert not re.search(r"url\((?!#)|@import", text)
    script = text[text.index("<script>") + 8 : text.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [each["content"] for each in page.named("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_links_lead_somewhere_and_ids_are_unique(page: Document) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for _, attributes in page.elements if attributes.get("href", "").startswith("#")}
    named = {name for _, attributes in page.elements for name in attributes.get("aria-labelledby", "").split()}
    assert targets | named <= set(ids)


def test_drawings_take_the_colours_of_the_page(written: tuple[Any, str, str], page: Document) -> None:
    drawings = [each for each in page.named("div") if each.get("class") == "drawing"]
    assert len(drawings) > 8
    assert all(each["role"] == "img" and len(each["aria-label"]) > 30 for each in drawings)
    body = written[1][written[1].index("<main") : written[1].index("</main>")]
    assert not re.search(r"#0a0[bc]", body)
    assert "var(--series-1)" in body


def test_the_same_files_give_the_same_page(world: Workspace, written: tuple[Any, str, str]) -> None:
    assert write(world)[1:] == written[1:]


def test_cases_tell_history_candidates_and_the_ranks_of_every_run(world: Workspace, page: Document) -> None:
    cases = [each for each in page.named("details") if each.get("class") == "case"]
    assert len(cases) == 20
    assert sum("open" in each for each in cases) == 3
    chosen = [each for each in page.named("li") if each.get("class") == "target"]
    assert len(chosen) == 20
    shares = [float(re.findall(r"width:([\d.]+)%", each["style"])[0]) for each in page.named("i")]
    assert sum(shares) == pytest.approx(2000, abs=10)
    ranks = {
        row["user_id"]: row["rank"] for row in rows_of(world.dataset(DATASET).run("markov", RUN) / "rankings.jsonl")
    }
    told = re.findall(r"rank [\d.]+User (u\d+).*?markov\s+([\d.]+)", page.text, re.DOTALL)
    assert len(told) == 20
    assert all(float(rank) == ranks[user] for user, rank in told)
    assert "A trace of this user's training history" in page.text


def test_fewer_cases_are_a_part_of_more(world: Workspace) -> None:
    measured = measure(first_ladder(world), 42)
    few, more, all_of_them = (draw_cases(measured, world, run="", count=n, seed=42).users for n in (4, 9, 999))
    assert (len(few), len(more), len(all_of_them)) == (4, 9, USERS)
    assert few < more


def test_another_run_can_be_shown_and_a_baseline_has_no_probabilities(world: Workspace) -> None:
    measured = measure(first_ladder(world), 42)
    section = cases_section(draw_cases(measured, world, run="popularity", count=3, seed=42), posters(world), {})
    assert "ranked by `popularity`" in section.lead
    [block] = section.blocks
    assert isinstance(block, Cases)
    assert block.scores_are.startswith("Bars lie between")
    with pytest.raises(SettingsError, match=r"--run nobody names no RUN .*random.*grpo-cot"):
        draw_cases(measured, world, run="nobody", count=3, seed=42)


def test_histories_are_left_out_when_the_candidate_file_is_another_now(world_copy: Workspace) -> None:
    measured = measure(first_ladder(world_copy), 42)
    assert len(draw_cases(measured, world_copy, run="", count=5, seed=42).examples) == 5
    path = world_copy.dataset(DATASET).candidates("test", "uni9", 5, 42)
    write_text(path, path.read_text(encoding="utf-8") + "\n")
    drawn = draw_cases(measured, world_copy, run="", count=5, seed=42)
    assert drawn.examples == {}
    [block] = cases_section(drawn, posters(world_copy), {}).blocks
    assert isinstance(block, Cases)
    assert [case.history for case in block.cases] == [()] * 5


def test_costs_add_up(page: Document) -> None:
    rows = page.table("stage", "money")
    assert rows[0] == ["stage", "artifact", "finished, UTC", "time", "calls", "tokens in", "tokens out", "money"]
    by_stage = {row[0]: row for row in rows}
    assert by_stage["caption"][4:] == ["24", "5,000", "700", "0.2500"]
    assert by_stage["sft"][3:6] == ["1 min 30 s", "", "50,000"]
    assert by_stage["all stages"][4:] == ["24", "55,000", "700", "0.2500"]


def test_what_thoughts_gain_stands_beside_what_they_cost(world_copy: Workspace) -> None:
    """60 users, two thoughts each, 900 tokens: 15 a user; 12 of 120 thoughts passed their bound."""
    plain = world_copy.dataset(DATASET).run("sft", RUN)
    folder = plain.with_name(f"{RUN}_thoughts2")
    rows = rows_of(plain / "rankings.jsonl")
    lines = [
        {
            "example_id": row["example_id"],
            "user_id": row["user_id"],
            "number": number,
            "text": f"{LOUD} {row['user_id']}",
        }
        | {"tokens": 7, "finished": number == 1}
        for row in rows
        for number in (1, 2)
    ]
    write_jsonl(folder / "thoughts.jsonl", lines)
    figures = {"number": 2, "tokens": 900, "unfinished": 12, "seconds": 1.5}
    assert make_run(world_copy, "sft", strength=5.0, details={"thoughts": figures}, thoughts=2) == folder
    _, text, _ = write(world_copy, run="sft thoughts2")
    page = Document(text)
    [_, row] = page.table("run", "gain")
    gain = Run(folder=folder, facts=read_json(folder / "metrics.json")).intervals["NDCG@3"].value
    gain -= Run(folder=plain, facts=read_json(plain / "metrics.json")).intervals["NDCG@3"].value
    assert row[0] == "sft thoughts2"
    assert gain > 0.1
    assert row[3].startswith(f"+{gain:.3f}")
    assert row[5:] == ["15.0", "10.0%", "0.0333", "0.0333"]
    assert page.text.count("What the model thought before it answered") == 20
    assert any(f"{LOUD} {user['user_id']}" in page.text for user in rows)
    assert LOUD not in text
    assert "averaged over the thoughts" in page.text
    evaluated = [cells for cells in page.table("stage", "tokens out") if "thoughts2" in cells[1]]
    assert [cells[-2] for cells in evaluated] == ["900"]


def test_what_tuning_and_fitting_of_a_baseline_took_is_among_the_costs(world_copy: Workspace) -> None:
    folder = world_copy.dataset(DATASET).processed / "baselines" / "itemknn_w5_s42" / "tuned"
    folder.mkdir(parents=True)
    settings = BaselineFitSettings(dataset=DATASET, name="itemknn", root=str(world_copy.root))
    before = costs.read_made(world_copy, DATASET)
    write_manifest(folder, settings, {}, started=time.monotonic() - 30)
    [added] = [made for made in costs.read_made(world_copy, DATASET) if made not in before]
    assert added.path == f"data/{DATASET}/processed/baselines/itemknn_w5_s42/tuned"
    assert added.manifest.seconds == pytest.approx(30, abs=1)


def test_an_alarm_of_the_monitor_is_told(page: Document) -> None:
    assert (
        "Alarm at step 40: the training reward rose and validation didn't. The first time, along fitted lines: "
        "reward +0.500 [+0.250, +0.750], validation +0.000 [-0.125, +0.125]." in page.text
    )
    assert [each["aria-label"] for each in page.named("div") if "place of the list" in each.get("aria-label", "")]


def test_validation_draws_the_expected_reward_where_there_is_one(world: Workspace) -> None:
    section = training_section(world, DATASET)
    assert section is not None
    drawn = [block for block in section.blocks if isinstance(block, FigureRow)]
    told = {
        block.title.split(" ")[0]: figure.text
        for block in drawn
        for figure in block.figures
        if figure.title == "Validation, exact"
    }
    assert "NDCG@3 from 0.2 to 0.7; HR@1 from 0.1 to 0.6; weights of step 50 are kept" in told["sft"]
    assert "HR@1 from 0.3 to 0.3; expected reward from 0.2 to 0.6; weights of step 0 are kept" in told["grpo-cot"]


def test_probes_are_drawn_and_told(world_copy: Workspace) -> None:
    path = world_copy.dataset(DATASET).run("grpo-cot", RUN) / "probes.json"
    own = {"dataset": DATASET, "name": "grpo-cot", "protocol": "uni9", "candidates": RUN, "num_users": 120}
    by_place = probed(lambda seen: [-place for place in range(len(seen.candidates))])
    write_json(path, own | by_place)
    section = probes_section(read_ladders(world_copy, DATASET, "NDCG@3")[0])
    assert section is not None
    drawn, overview, *_ = section.blocks
    assert isinstance(drawn, FigureRow)
    assert drawn.title == "grpo-cot · uni9, 120 users"
    assert [figure.title for figure in drawn.figures] == [
        "NDCG@3/uni9 when the prompt changes",
        "HR@1/uni9 by the slot of the target",
    ]
    assert "1: 1.000 [1.000, 1.000]; 2: 0.000 [0.000, 0.000]" in drawn.figures[1].text
    assert isinstance(overview, Sheet)
    assert any("HR@1 is 0.000 with the target in slot" in row[-1] for row in overview.table.rows)
    del by_place["probes"]["position"]["slots"]
    write_json(path, own | by_place)
    with pytest.raises(ArtifactError, match=r"probes\.json isn't what `mllmrec probe` writes now .*slots"):
        probes_section(read_ladders(world_copy, DATASET, "NDCG@3")[0])


def test_probes_that_were_altered_are_refused(world_copy: Workspace) -> None:
    path = world_copy.dataset(DATASET).run("grpo-cot", RUN) / "probes.json"
    own = {"dataset": DATASET, "name": "grpo-cot", "protocol": "uni9", "candidates": RUN, "num_users": 120}
    write_json(path, own | probed(lambda seen: [-slot for slot in range(len(seen.candidates))]))
    settings = ProbeSettings(dataset=DATASET, root=str(world_copy.root), tag="grpo-cot")
    write_manifest(path, settings, {}, started=time.monotonic())
    ladders = read_ladders(world_copy, DATASET, "NDCG@3")[0]
    assert probes_section(ladders) is not None
    write_text(path, path.read_text(encoding="utf-8").replace('"num_users": 120', '"num_users": 999'))
    with pytest.raises(ArtifactError, match=r"no longer what `mllmrec probe` finished: probes\.json was altered"):
        probes_section(ladders)


def test_only_settings_that_decide_the_result_are_told(world: Workspace, written: tuple[Any, str, str]) -> None:
    assert str(world.root) not in written[1] + written[2]
    assert "use cot" not in written[1]
    assert "<dt>use_cot</dt><dd>yes</dd>" in written[1]


def test_traces_show_fates_and_reasons(page: Document) -> None:
    rows = {row[0]: row[1:] for row in page.table("fate")}
    assert rows["kept"] == [f"{USERS - 2}", "96.7%"]
    assert rows["left out: has too few words"] == ["2", "3.3%"]


def test_what_is_not_there_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    summary, text, markdown = write(make_data(tmp_path), audit=False)
    assert summary.facts["sections"] == ["data", "costs", "settings"]
    for command in ("mllmrec evaluate", "mllmrec sft", "mllmrec probe", "mllmrec caption", "mllmrec pseudo-cot"):
        assert f"<code>{command}</code>" in text
        assert f"`{command}`" in markdown
    with pytest.raises(SettingsError, match="has none yet"):
        write(Workspace(tmp_path), audit=False, run="sft")


def test_a_dataset_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="The dataset nowhere is missing"):
        write(Workspace(tmp_path), "nowhere")


def test_an_unfinished_run_is_left_out_and_an_altered_or_incomplete_one_refused(world_copy: Workspace) -> None:
    unfinished = world_copy.dataset(DATASET).run("sft", RUN)
    (unfinished / "manifest.json").unlink()
    ladders, left_out = read_ladders(world_copy, DATASET, "NDCG@3")
    assert left_out == [unfinished]
    assert "sft" not in [rung.label for rung in ladders[0].rungs]
    path = world_copy.dataset(DATASET).run("tiny", RUN) / "rankings.jsonl"
    write_text(path, "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]))
    with pytest.raises(
        ArtifactError, match=r"tiny.* is no longer what `mllmrec evaluate` finished: rankings.jsonl was altered"
    ):
        write(world_copy, audit=False)
    vouch_again(path.parent)
    with pytest.raises(ArtifactError, match=r"tiny.*is incomplete"):
        write(world_copy, audit=False)


def test_a_run_whose_metrics_were_altered_is_refused(world_copy: Workspace) -> None:
    path = world_copy.dataset(DATASET).run("grpo", RUN) / "metrics.json"
    facts = read_json(path)
    facts["metrics"]["HR@1"]["value"] += 0.1
    write_json(path, facts)
    with pytest.raises(ArtifactError, match=r"grpo.*: metrics.json was altered\..* make it again with --overwrite"):
        write(world_copy, audit=False)


def test_a_leak_is_told_in_words(world_copy: Workspace) -> None:
    test = world_copy.dataset(DATASET).split("test").read_text(encoding="utf-8")
    write_text(world_copy.dataset(DATASET).split("train"), test)
    told = audit_section(world_copy, DATASET, 5).blocks[0]
    assert isinstance(told, Prose)
    assert told.tone == "alarm"
    assert re.match(r"world: [1-9]\d* leaks", told.text)


def test_markdown_holds_the_tables_and_no_markup_of_others(written: tuple[Any, str, str]) -> None:
    markdown = written[2]
    assert not re.search(r"(?<!\\)<(?!br>)", markdown)
    for table in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert re.search(r"^\| sft<br>− tiny \|.*\| \*\*\+0\.\d+<br>", markdown, re.MULTILINE)


@pytest.mark.parametrize("metric", ["NDCG", "HR@0", "recall@3", ""])
def test_a_metric_that_is_none_is_refused(metric: str) -> None:
    with pytest.raises(SettingsError, match="expected NDCG@K, HR@K or MRR"):
        validated(ReportSettings, {"dataset": DATASET, "metric": metric}, "report")


def test_a_metric_that_no_run_tells_gives_way(world: Workspace) -> None:
    assert first_ladder(world, "NDCG@7").metric == "NDCG@3"
    assert first_ladder(world, "MRR").metric == "MRR"


def test_the_page_tells_what_was_tested_and_how_to_read_it(page: Document, written: tuple[Any, str, str]) -> None:
    title = f"{DATASET}: 4 language models and 3 baselines rank what comes next"
    assert written[2].startswith(f"# {title}\n")
    assert title in page.text
    assert "the target among 9 items drawn uniformly" in page.text
    assert "Guessing gives NDCG@3 = 0.213 here." in page.text
    assert re.search(r"a true difference in NDCG@3 of 0\.\d+ to 0\.\d+, depending on the pair", page.text)


def test_hit_rates_are_four_lines_at_most_and_ceilings_stand_among_the_intervals(world_copy: Workspace) -> None:
    facts = first_ladder(world_copy).facts
    best = {"NDCG@3": {"value": 0.9, "low": 0.8, "high": 1.0}}
    content = {"candidates_sha256": facts["candidates_sha256"], "num_users": USERS, "rows": {"ceiling": best}}
    write_json(world_copy.dataset(DATASET).ceiling, content)
    measured = measure(first_ladder(world_copy), 42)
    intervals, hits = ladder_figures(measured.ladder, measured.positions)
    assert intervals.text.endswith("; chance 0.213; ceiling 0.900.")
    assert [">ceiling<" in intervals.drawing.svg, ">chance<" in intervals.drawing.svg] == [True, True]
    best_baseline = measured.ladder.strongest_baseline
    assert best_baseline is not None
    assert [key.label for key in hits.drawing.keys] == ["chance", best_baseline.label, "tiny", "grpo-cot"]
    assert ("Chance and ceiling", "Guessing gives NDCG@3 = 0.213 here. The best possible ranker would reach 0.900") in [
        (term, text.partition(", known")[0]) for term, text in how_to_read(measured)
    ]


def test_groups_are_means_over_their_users(world: Workspace) -> None:
    measured = measure(first_ladder(world), 42)
    section = groups_section(measured.ladder, measured.positions, world)
    assert section is not None
    [row] = section.blocks
    assert isinstance(row, FigureRow)
    files = world.dataset(DATASET)
    lines = {
        split: [line.split("\t") for line in files.split(split).read_text(encoding="utf-8").splitlines()]
        for split in ("train", "test")
    }
    counts = Counter(item for _, items in lines["train"] for item in items.split())
    lengths = {user: len(items.split()) - 1 for user, items in lines["test"]}
    rows = rows_of(files.run("grpo-cot", RUN) / "rankings.jsonl")
    gains = [1 / math.log2(1 + row["rank"]) if row["rank"] <= 3 else 0.0 for row in rows]
    by_kind = {
        "NDCG@3/uni9 by popularity of the target": [counts[row["target_id"]] for row in rows],
        "NDCG@3/uni9 by length of the history": [lengths[row["user_id"]] for row in rows],
    }
    assert [figure.title for figure in row.figures] == list(by_kind)
    for figure in row.figures:
        told = re.findall(r"([\d–]+): ([\d.]+) \[", figure.text.partition("grpo-cot ")[2])
        assert len(told) > 1
        num_users = 0
        for group, mean in told:
            low, _, high = group.partition("–")
            chosen = [
                gain
                for gain, value in zip(gains, by_kind[figure.title], strict=True)
                if int(low) <= value <= int(high or low)
            ]
            num_users += len(chosen)
            assert f"{group}: {len(chosen)} users" in figure.text
            assert float(mean) == pytest.approx(math.fsum(chosen) / len(chosen), abs=0.0006)
        assert num_users == USERS


def test_scorers_of_traces_come_last_and_two_readings_make_no_curve(world_copy: Workspace) -> None:
    folder = world_copy.checkpoint(DATASET, "sft")
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "settings": {**manifest["settings"], "fold": "1/2"}})
    log = [{"step": step, "loss": loss, "valid_NDCG@3": loss / 4} for step, loss in ((20, 0.8), (40, 0.5))]
    write_jsonl(folder / "training.jsonl", log)
    section = training_section(world_copy, DATASET)
    assert section is not None
    *_, drawn, told = section.blocks
    assert isinstance(drawn, FigureRow)
    assert isinstance(told, Prose)
    assert (drawn.title, drawn.figures) == ("sft · sft, 40 steps, a scorer of traces", ())
    assert told.text == (
        "Too few readings for a curve. Loss: loss 0.8 at step 20, 0.5 at step 40. Validation, exact: NDCG@3 0.2 at "
        "step 20, 0.125 at step 40."
    )
