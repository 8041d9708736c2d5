"""The command line: a frozen set of verbs and flags, and mistakes told in one paragraph.

Renew the frozen set, when a change of it is meant, with

    PYTHONPATH=tests/support .venv/bin/python tests/cli/test_cli.py > tests/cli/cli_flags.txt
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App
from workspaces import tsv, write_dataset

from mllmrec import Workspace
from mllmrec.cli.help import TASKS, THEMES
from mllmrec.cli.main import main
from mllmrec.cli.verbs import app
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.storage.workspace import write_text

FROZEN = Path(__file__).parent / "cli_flags.txt"
LINES = tsv({str(user): [f"i{(user * 3 + step * 7) % 40}" for step in range(12)] for user in range(6)})


def flags(group: App, verb: tuple[str, ...] = ()) -> list[str]:
    """`verb --flag` for every flag of every verb; words that need no flag stand in capitals."""
    if group.default_command is None or not verb:
        names = sorted(name for name in group if not name.startswith("-"))
        return [line for name in names for line in flags(group[name], (*verb, name))]
    found = []
    for argument in group.assemble_argument_collection():
        found += [name for name in argument.names if name.startswith("--")]
        found += [argument.name.removeprefix("--").upper()] if argument.index is not None else []
    return [f"{' '.join(verb)} {flag}" for flag in sorted(found)]


def run(*words: str) -> int:
    """The exit status of a command line."""
    with pytest.raises(SystemExit) as exit_:
        main(list(words))
    return int(exit_.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one paragraph that a wrong command line is answered with."""
    assert run(*words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.endswith(".\n")
    return told.err.rstrip("\n")


def parsed(line: str) -> Any:
    """The settings a command line stands for, without running its verb."""
    _, bound, _ = app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)
    return bound.arguments["settings"]


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    return write_dataset(tmp_path, train=LINES, test=LINES)


def test_verbs_and_flags_are_frozen() -> None:
    assert FROZEN.read_text(encoding="utf-8").splitlines() == flags(app), (
        "the verbs or flags have changed; when that is meant, tell it in the changelog and renew the list with "
        "`PYTHONPATH=tests/support .venv/bin/python tests/cli/test_cli.py > tests/cli/cli_flags.txt`"
    )


def test_every_flag_has_a_help_text() -> None:
    silent = []
    for verb in sorted({line.rsplit(" ", 1)[0] for line in flags(app)}):
        group = app
        for name in verb.split():
            group = group[name]
        silent += [
            f"{verb} {each.name}"
            for each in group.assemble_argument_collection(parse_docstring=True)
            if each.name.startswith("--") and not each.parameter.help
        ]
    assert not silent


REFERENCE = {
    "mllmrec sft --dataset movielens --root . --backbone Qwen3-4B --use_cot --cot_prob .1 --min_inter 10 --num_neg 9 "
    "--tag x --epochs 3 --lr 1e-5 --rank 16 --batch 2 --accum 8": {
        "dataset": "movielens",
        "root": ".",
        "backbone": "Qwen3-4B",
        "use_cot": True,
        "cot_prob": 0.1,
        "min_inter": 10,
        "num_neg": 9,
        "tag": "x",
        "epochs": 3,
        "lr": 1e-5,
        "rank": 16,
        "batch": 2,
        "accum": 8,
    },
    "mllmrec merge --dataset movielens --tag x --merged-tag y": {"dataset": "movielens", "tag": "x", "merged_tag": "y"},
    "mllmrec grpo --dataset movielens --sft_tag y --root /w --min_inter 10 --num_neg 9 --seed 42 --use_cot "
    "--cot_prob .1 --epochs 1 --lr 1e-5 --batch 4 --accum 8 --logging_steps 20 --save_steps 100 --num_generations 4 "
    "--max_completion_length 128 --temperature .9 --top_p .9 --beta .1 --tag z": {
        "sft_tag": "y",
        "root": "/w",
        "seed": 42,
        "use_cot": True,
        "logging_steps": 20,
        "save_steps": 100,
        "num_generations": 4,
        "max_completion_length": 128,
        "temperature": 0.9,
        "top_p": 0.9,
        "beta": 0.1,
        "tag": "z",
    },
    "mllmrec evaluate --dataset movielens --root . --backbone Qwen3-4B --top_k 3 --min_inter 10 --num_neg 9 "
    "--device cuda --sft_tag y --tag z --distributed": {
        "top_k": (3,),
        "device": "cuda",
        "sft_tag": "y",
        "tag": "z",
        "distributed": True,
    },
}


@pytest.mark.parametrize("line", REFERENCE, ids=lambda line: line.split()[1])
def test_command_lines_of_the_reference_implementation_are_taken(line: str) -> None:
    settings = parsed(line)
    assert {name: getattr(settings, name) for name in REFERENCE[line]} == REFERENCE[line]
    assert parsed(line.replace("_", "-")) == settings


def test_defaults_of_grpo_are_ours() -> None:
    settings = parsed("mllmrec grpo --dataset movielens --sft-tag y")
    assert (settings.num_generations, settings.temperature, settings.top_p) == (8, 1.0, 1.0)


@pytest.mark.parametrize("line", ["--top-k 3,5 ", "--top_k 3 --top-k 5", "--top-k=5,3"])
def test_lists_are_taken_in_every_spelling(line: str) -> None:
    assert parsed(f"mllmrec evaluate --dataset shop {line}").top_k == (3, 5)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("mllmrec run demo --root /w", "recipe", "demo"),
        ("mllmrec run --root /w demo", "recipe", "demo"),
        ("mllmrec run --recipe demo --root /w", "recipe", "demo"),
        ("mllmrec fetch dataset movielens-1m", "name", "movielens-1m"),
        ("mllmrec fetch backbone --root /w Qwen/Qwen3-4B", "id", "Qwen/Qwen3-4B"),
    ],
)
def test_what_a_verb_is_about_needs_no_flag(line: str, name: str, value: str) -> None:
    settings = parsed(line)
    assert getattr(settings, name) == value
    assert settings.root in (".", "/w")


def test_a_lonely_word_is_never_taken_for_a_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "sft", "--dataset", "shop", "elsewhere") == (
        "Wrong command: nothing is expected where elsewhere stands. See `mllmrec sft --help`."
    )


def test_an_unknown_flag_is_answered_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "sft", "--dataset", "shop", "--use_kot", "--zzz")
    assert told == (
        "Wrong command: there is no --use-kot (did you mean --use-cot?); there is no --zzz. See `mllmrec sft --help`."
    )


def test_an_unknown_verb_is_answered_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "evalute")
    assert 'Did you mean "evaluate"?' in told
    assert told.endswith("See `mllmrec --help`.")
    assert "`mllmrec fetch --help`" in refused(capsys, "fetch", "datset")


def test_all_mistakes_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(
        capsys, "sft", "--dataset", "s", "--epochs", "0", "--lr=-1", "--batch", "two", "--tagg", "x", "--eval_users="
    )
    for clause in (
        "there is no --tagg (did you mean --tag?)",
        "--epochs 0: input should be greater than or equal to 1",
        "--lr -1: input should be greater than 0",
        "--batch two: input should be a valid integer",
        "--eval-users '': input should be a valid integer",
    ):
        assert clause in told


def test_missing_flags_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "grpo", "--epochs", "1", "--dataste", "shop")
    assert "there is no --dataste (did you mean --dataset?)" in told
    assert "--dataset is required" in told
    assert "--sft-tag is required" in refused(capsys, "grpo", "--dataset", "shop")
    assert refused(capsys, "run") == (
        "Wrong command: --recipe is required, a file or one of the shipped recipes: demo, microlens, movielens, "
        "movielens-cpu, netflix, own, own-gpu. See `mllmrec run --help`."
    )


def test_a_flag_without_its_value_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--lr requires an argument" in refused(capsys, "sft", "--dataset", "shop", "--lr")
    assert "no recipe ''" in refused(capsys, "sft", "--dataset", "shop", "--config")


def test_comparing_needs_two_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected two RUN folders or more, such as result/" in refused(capsys, "compare", "a")
    assert refused(capsys, "verify") == (
        "Wrong settings: expected a RUN folder or more, such as result/shop/markov/test_uni9_w10_s42."
    )


def test_a_stage_runs_and_tells_what_it_did(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("candidates", "--dataset", "shop", "--root", str(shop.root), "--min_inter", "5")
    assert run(*words) == 0
    assert capsys.readouterr().out == "6 lists of 10 candidates in test_uni9_w5_s42.jsonl\n"
    assert run(*words) == 0
    assert capsys.readouterr().out == "test_uni9_w5_s42.jsonl is there already; nothing to do.\n"


def test_only_the_first_process_of_a_launch_speaks(
    shop: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert run("candidates", "--dataset", "shop", "--root", str(shop.root), "--min-inter", "5") == 0
    assert capsys.readouterr() == ("", "")


def test_wrong_input_is_one_paragraph_and_a_traceback_only_on_request(
    shop: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(shop.dataset("shop").split("train"), "1\ta b\nno tab here\n")
    words = ("candidates", "--dataset", "shop", "--root", str(shop.root))
    told = refused(capsys, *words)
    assert told.startswith(f"{shop.dataset('shop').split('train')}:2: no tab.")
    assert run(*words, "--debug") == 2
    debugged = capsys.readouterr().err
    assert "Traceback (most recent call last):" in debugged
    assert debugged.endswith(f"{told}\n")


def test_a_missing_folder_names_the_command_that_makes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "candidates", "--dataset", "shop", "--root", str(tmp_path))
    assert told.startswith(f"The dataset shop is missing: {tmp_path / 'data' / 'shop'} does not exist.")
    assert "`mllmrec prepare`" in told


def test_a_failing_file_system_is_a_failed_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = write_dataset(tmp_path, train=LINES, test=LINES)
    workspace.dataset("shop").processed.write_text("a file where a folder should be")
    assert run("candidates", "--dataset", "shop", "--root", str(tmp_path), "--min-inter", "5") == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "Nothing that was finished is lost" in told


def test_an_unexpected_error_is_one_paragraph_too(
    shop: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("several\n  lines")

    monkeypatch.setattr("mllmrec.data.candidates.stage.run", fail)
    assert run("candidates", "--dataset", "shop", "--root", str(shop.root)) == 3
    assert capsys.readouterr().err == (
        "The stage failed unexpectedly: RuntimeError: several lines. Run it with --debug to see where.\n"
    )


def test_ctrl_c_is_answered_with_130(
    shop: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("the same command goes on from there")

    monkeypatch.setattr("mllmrec.data.candidates.stage.run", interrupt)
    assert run("candidates", "--dataset", "shop", "--root", str(shop.root)) == 130
    assert capsys.readouterr().err == "Interrupted: the same command goes on from there.\n"


@pytest.mark.slow
def test_a_real_ctrl_c_leaves_no_traceback_and_no_half_file(tmp_path: Path) -> None:
    users = {str(user): [f"i{(user * 7 + step * 11) % 9000}" for step in range(40)] for user in range(20_000)}
    workspace = write_dataset(tmp_path, train=tsv(users), test=tsv(users))
    words = ["candidates", "--dataset", "shop", "--root", str(tmp_path), "--num-neg", "99"]
    process = subprocess.Popen([sys.executable, "-m", "mllmrec", *words], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob("data/shop/processed/.*.tmp")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "Interrupted.\n"
    assert list(workspace.dataset("shop").processed.glob("*")) == []


RECIPE = """
dataset: shop
seed: 7
candidates: {num_neg: 4, min_inter: 5}
sft: {use_cot: true, captions: "off", tag: first, lr: 1e-4}
baselines: {names: [popularity, random], top_k: [1, 3]}
grpo: {sft-tag: first-merged}
evaluate: [{tag: a}, {tag: b}]
"""


@pytest.fixture
def recipe(shop: Workspace) -> str:
    path = shop.root / "mine.yaml"
    write_text(path, RECIPE)
    return str(path)


def with_recipe(recipe: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """The settings that reach a stage; each run function stands in a module that loads without torch."""
    seen: dict[str, Any] = {}
    stage = {"baselines": "mllmrec.evaluation.baselines.stage", "candidates": "mllmrec.data.candidates.stage"}
    module = __import__(stage[words[0]], fromlist=["run"])

    def keep(settings: Any, workspace: Workspace) -> Any:
        from mllmrec.records import Summary

        seen.update(settings.model_dump())
        return Summary(headline=workspace.root.name)

    monkeypatch.setattr(module, "run", keep)
    assert run(*words, "--config", recipe) == 0
    return seen


def test_a_recipe_fills_what_the_command_line_leaves_open(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = with_recipe(recipe, monkeypatch, "candidates")
    assert (seen["dataset"], seen["seed"], seen["num_neg"], seen["min_inter"]) == ("shop", 7, 4, 5)
    assert seen["negatives"] == "uniform"


def test_explicit_flags_win_over_a_recipe(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = with_recipe(recipe, monkeypatch, "candidates", "--num_neg", "6", "--seed=8", "--dataset", "other")
    assert (seen["dataset"], seen["seed"], seen["num_neg"], seen["min_inter"]) == ("other", 8, 6, 5)


def test_lists_of_a_recipe_reach_their_verb(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = with_recipe(recipe, monkeypatch, "baselines")
    assert seen["names"] == ("popularity", "random")
    assert seen["top_k"] == (1, 3)
    assert with_recipe(recipe, monkeypatch, "baselines", "--top-k", "5")["top_k"] == (5,)


@pytest.mark.parametrize(("word", "expected"), [((), True), (("--no-use-cot",), False), (("--use_cot",), True)])
def test_a_switch_of_a_recipe_can_be_taken_back(recipe: str, word: tuple[str, ...], expected: bool) -> None:
    from mllmrec.cli.main import recipe_defaults

    app.config = recipe_defaults(recipe)
    try:
        settings = parsed(f"mllmrec sft {' '.join(word)}")
        assert parsed("mllmrec grpo").sft_tag == "first-merged"
    finally:
        app.config = ()
    assert (settings.use_cot, settings.captions, settings.lr) == (expected, "off", 1e-4)


def test_a_recipe_with_several_blocks_of_a_verb_is_refused_for_that_verb(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "has 2 blocks for evaluate, and --config needs one" in refused(capsys, "evaluate", "--config", recipe)


def test_the_recipe_of_one_call_is_forgotten_by_the_next(shop: Workspace, recipe: str) -> None:
    root = ("--root", str(shop.root))
    assert run("candidates", "--config", recipe, *root) == 0
    assert run("candidates", "--dataset", "shop", "--num-neg", "3", "--min-inter", "6", *root) == 0
    names = sorted(path.name for path in shop.dataset("shop").processed.glob("*.jsonl"))
    assert names == ["test_uni3_w6_s42.jsonl", "test_uni4_w5_s7.jsonl"]
    assert len(read_candidates(shop.dataset("shop").processed / names[1])[0].candidates) == 5


def test_running_a_recipe_again_with_overwrite_does_the_work_again(shop: Workspace) -> None:
    path = shop.root / "lists.yaml"
    write_text(path, "dataset: shop\ncandidates: {num_neg: 4, min_inter: 5}\nbaselines: {num_neg: 4, min_inter: 5}\n")
    words = ("run", str(path), "--root", str(shop.root))
    assert run(*words) == 0
    manifest = shop.dataset("shop").processed / "test_uni4_w5_s42.jsonl.manifest.json"
    first = manifest.stat().st_mtime_ns
    assert run(*words) == 0
    assert manifest.stat().st_mtime_ns == first
    assert run(*words, "--overwrite") == 0
    assert manifest.stat().st_mtime_ns > first
    assert json.loads(manifest.read_text())["settings"]["overwrite"] is True


@pytest.mark.parametrize(
    "words", ["sft", "grpo --sft-tag sft", "evaluate --sft-tag sft", "probe", "candidates", "audit"]
)
def test_a_dataset_that_isnt_there_is_told_before_anything_else(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words.split(" "), "--dataset", "shap", "--root", str(tmp_path)) == 2
    told = capsys.readouterr().err
    assert "The dataset shap is missing" in told
    assert "Make it with `mllmrec prepare`" in told


def test_version_and_help_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == "0.1.0\n"
    assert run("sft", "--help") == 0
    assert "--cot-prob" in capsys.readouterr().out


def test_every_verb_has_a_task_and_every_flag_a_theme(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = {line.rsplit(" ", 1)[0] for line in flags(app)}
    assert sorted(verb for task in TASKS.values() for verb in task) == sorted({verb.split()[0] for verb in verbs})
    themed = {flag for theme in THEMES.values() for flag in theme.split()}
    given = {line.rsplit(" ", 1)[1].removeprefix("--") for line in flags(app) if " --" in line}
    assert themed == {flag for flag in given if f"no-{flag}" in given or not flag.startswith("no-")}
    assert run("grpo", "--help") == 0
    panels = re.split(r"╭─ (.+?) ─", capsys.readouterr().out)[1:]
    shown = dict(zip(panels[::2], panels[1::2], strict=True))
    assert next(iter(shown)) == "Required"
    assert re.findall(r"--[a-z-]+", shown["Required"]) == ["--dataset", "--sft-tag"]
    assert "--reward CHOICE" in shown["Rollouts and rewards"]


if __name__ == "__main__":
    print("\n".join(flags(app)))


@pytest.mark.parametrize("rate", ["inf", "nan"])
def test_numbers_are_finite(capsys: pytest.CaptureFixture[str], rate: str) -> None:
    told = refused(capsys, "sft", "--dataset", "s", "--lr", rate)
    assert f"--lr {rate}: input should be a finite number" in told
