"""How `mllmrec --help` is laid out: verbs by task, and the flags of a verb by theme, the required ones first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App, Group

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

TASKS = {
    "Data": ("prepare", "fetch", "candidates", "retrieve", "audit"),
    "Texts": ("caption", "pseudo-cot", "refine", "assess"),
    "Training": ("backbone", "sft", "merge", "grpo"),
    "Evaluation": ("baselines", "evaluate", "compare", "verify", "blend", "probe", "report"),
    "Use": ("recommend", "serve"),
    "All in one": ("run", "demo", "doctor"),
}
"""The verbs of each task, in the order in which they are used."""

REQUIRED, OTHER = "Required", "Other"
THEMES = {
    "Input and output": (
        "dataset root overwrite out tag merged-tag names runs raw images links from url sha256 revision max-gb max-mb "
        "retries api-url image-url size keep json file id name recipe source"
    ),
    "Columns and splits": (
        "user-column item-column time-column title-column titles titles-item-column rating-column min-rating "
        "delimiter quoting time-format split cut-share valid-cut-share k-core drop-repeats drop-missing-times"
    ),
    "Users, windows and draws": ("min-inter windows history user fold folds limit limit-from shard cases run seed"),
    "Candidates": (
        "num-neg negatives candidates retriever retrieve num rerank legacy import import-name import-targets "
        "import-first top-k"
    ),
    "Model": (
        "backbone sft-tag model peft rank lora-targets lora-dropout layers width heads vocab embedder blend features "
        "on scorer"
    ),
    "Prompts": (
        "captions use-cot cot-prob cot-as chat-template list-prompt max-prompt-tokens answer-conditioned raw-ids "
        "thinking max-pixels"
    ),
    "Training": "objective answer-weight epochs lr warmup-share batch accum ladder",
    "Validation": "validate eval-users eval-steps select-by",
    "Rollouts and rewards": (
        "rollouts reward num-generations temperature top-p max-completion-length beta on-inflation inflation-window "
        "replay"
    ),
    "Thoughts": "think thoughts max-thought-tokens thought-temperature",
    "Scoring": (
        "score method layout metric metrics probes rotations orders threshold tolerance max-new-tokens "
        "max-answer-tokens explain audit"
    ),
    "The writer, and what it costs": (
        "backend base-url api-key-env timeout max-retries max-inflight max-failure-share retry-failed dry-run budget "
        "price-in price-out"
    ),
    "Server": "host port insecure batching deadline max-waiting max-body-kb max-candidates max-history",
    "Made-up data": "sequence-steps copy-steps title-share poster-share order-share popular-share",
    "Machine and progress": (
        "device dtype batch-tokens workers lanes gradient-checkpointing distributed force logging-steps save-steps "
        "resume track gpu plan serve"
    ),
}
"""The flags of each theme, without dashes and with blanks between them.

A flag that is required stands in a panel before all of them."""


def by_theme(console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
    """Print a panel of flags as one panel for each theme: a formatter of cyclopts."""
    from cyclopts.help import DefaultFormatter

    themes: dict[str, list[HelpEntry]] = {name: [] for name in (REQUIRED, *THEMES, OTHER)}
    for entry in panel.entries:
        themes[theme_of(entry)].append(entry)
    for title, entries in themes.items():
        if entries:
            DefaultFormatter()(console, options, panel.copy(title=title, entries=entries))


def theme_of(entry: HelpEntry) -> str:
    """The theme of a flag; `REQUIRED` for those that must be given."""
    if entry.required:
        return REQUIRED
    names = {name.removeprefix("--") for name in entry.positive_names}
    return next((theme for theme, flags in THEMES.items() if names & set(flags.split())), OTHER)


FLAGS = Group("Parameters", help_formatter=by_theme)


def by_task(app: App) -> None:
    """Set out the verbs of a program in `TASKS`, and what is known of the program itself after them."""
    for number, (task, verbs) in enumerate(
        {**TASKS, "About": tuple(app.help_flags) + tuple(app.version_flags)}.items()
    ):
        group = Group(task, sort_key=number)
        for position, verb in enumerate(verbs):
            app[verb].group, app[verb].sort_key = group, position
