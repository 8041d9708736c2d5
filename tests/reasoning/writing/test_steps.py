"""The form of four steps and of drafts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shelves import GOOD_STEPS

from mllmrec.reasoning.writing.steps import BrokenRuleError, broken_rule, criteria, four_steps, free_words

ORDER = "the steps aren't 1 to 4 in order, each once"


def changed(old: str, new: str) -> str:
    assert old in GOOD_STEPS
    return GOOD_STEPS.replace(old, new)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", ORDER),
        ("They like boats.", "text outside the steps"),
        (GOOD_STEPS + "\nI hope this helps.\nOr shall I write it anew?", "text outside the steps"),
        (changed("bays.", "bays.\nAnd more of it."), "text outside the steps"),
        (changed("calm\n", "calm\nAnd more of it.\n"), "text outside the steps"),
        ("Step 1: I could say this.\n" + GOOD_STEPS, ORDER),
        (
            "### Step 1: Signals in it\nBoats and bays.\n" + "\n".join(GOOD_STEPS.splitlines()[1:]),
            "text outside the steps",
        ),
        ("\n".join(GOOD_STEPS.splitlines()[:3]), ORDER),
        ("\n".join(reversed(GOOD_STEPS.splitlines())), ORDER),
        (GOOD_STEPS + "\n" + GOOD_STEPS, ORDER),
        (changed("Step 2", "Step 1"), ORDER),
        (GOOD_STEPS + "\nStep 5: And so on for ever.", ORDER),
        (changed("The next choice goes on to larger ships.", ""), "Step 2 is empty"),
        (changed("The next choice goes on to larger ships.", "Ships."), "Step 2 has fewer than 3 or over 120 words"),
        (changed("quiet bays", "bay " * 130), "Step 1 has fewer than 3 or over 120 words"),
        (changed("; (3) calm", ""), "Step 3 hasn't 3 to 5 criteria"),
        (changed("calm\n", "calm; (4) blue; (5) far; (6) old\n"), "Step 3 hasn't 3 to 5 criteria"),
        (changed("in a bay.", "in a bay. Also storms at sea."), "Step 4 is more than one sentence"),
    ],
    ids=str,
)
def test_each_broken_rule_has_its_words(text: str, rule: str) -> None:
    assert broken_rule(text) == rule


def test_the_steps_together_are_bounded() -> None:
    long = GOOD_STEPS
    for words in ("quiet bays", "larger ships", "near water"):
        long = long.replace(words, "word " * 110)
    assert broken_rule(long) == "the steps have over 320 words together"


@pytest.mark.parametrize(
    "text",
    [
        GOOD_STEPS,
        GOOD_STEPS.replace("\n", "\n\n"),
        GOOD_STEPS.replace("Step", "  step"),
        "\n".join(f"**{line[:7]}**{line[7:]}" for line in GOOD_STEPS.splitlines()),
        changed("(1) near water; (2) with a boat; (3) calm", "\n- near water\n- with a boat;\n* calm"),
        changed("(1) near water; (2) with a boat; (3) calm", "\n1. near water\n2. with a boat\n3) calm"),
        "Sure! Here is the refined reasoning:\n\n" + GOOD_STEPS,
        "Let me look at the list.\nBoats, mostly.\n" + GOOD_STEPS,
        GOOD_STEPS + "\n\nLet me know if you need anything else!",
        f"```\n{GOOD_STEPS}\n```",
        f"Here it is:\n```text\n{GOOD_STEPS}\n```\nI hope this helps.",
        GOOD_STEPS.replace(":", "："),
        changed("(1) near water; (2) with a boat; (3) calm", "（1）near water；（2）with a boat；（3）calm"),
        re.sub(r"(?m)^(Step \d):", r"**\1 (Signals):**", GOOD_STEPS),
        re.sub(r"(?m)^(Step \d): ", r"**\1: What it means:** ", GOOD_STEPS),
        re.sub(r"(?m)^(Step \d): ", r"**\1: What it means** – ", GOOD_STEPS),
        re.sub(r"(?m)^(Step \d: .*)$", r"**\1**", GOOD_STEPS),
        re.sub(r"(?m)^(Step \d)", r"### \1", GOOD_STEPS),
        re.sub(r"(?m)^(Step \d)", r"- \1", GOOD_STEPS),
        re.sub(r"(?m)^(Step \d): ", r"\1 of 4 - ", GOOD_STEPS),
        re.sub(r"(?m)^(Step \d): ", r"### \1: What it means\n\n", GOOD_STEPS) + "\n\nI hope this helps.",
        re.sub(r"(?m)^(Step \d): ", r"**\1**\n", GOOD_STEPS),
        re.sub(r"(?m)^(Step \d): ", r"\1:\n", GOOD_STEPS),
        GOOD_STEPS.replace("\nStep", "\n\n---\n\nStep"),
    ],
    ids=(
        *("as asked", "blank lines", "case", "bold", "bullets", "numbered lines", "preamble", "two lines before"),
        *("closing line", "fence", "fence and talk", "full-width colons", "full-width criteria", "label in brackets"),
        *("bold label", "bold label and a dash", "all bold", "headings", "list", "dashes", "headings above"),
        *("bold headings above", "text below", "rules"),
    ),
)
def test_small_departures_are_put_right(text: str) -> None:
    assert four_steps(text) == GOOD_STEPS


def test_no_word_of_a_step_passes_for_a_label() -> None:
    assert four_steps(changed("Step 1: The user likes boats", "**Step 1: The user likes** boats")) == changed(
        "The user likes boats", "The user likes** boats"
    )
    assert four_steps(changed("Step 1: The user likes boats", "**Step 1:** The user: **likes** boats")) == changed(
        "The user likes boats", "The user: **likes** boats"
    )
    headed = changed("Step 4: A calm", "### Step 4: A calm") + "\nI hope this helps."
    assert four_steps(headed) == GOOD_STEPS


def test_words_around_the_steps_are_told_from_bare_steps() -> None:
    assert broken_rule("Sure:\n" + GOOD_STEPS, is_bare=True) == "text outside the steps"
    assert broken_rule(f"```\n**{GOOD_STEPS}\n```", is_bare=True) is None


def test_a_title_in_quotes_or_an_abbreviation_ends_no_sentence() -> None:
    assert broken_rule(changed("in a bay.", 'in a bay, close to "Ahoy! Captain".')) is None
    assert broken_rule(changed("in a bay.", "in a bay, told by Dr. Belamo.")) is None


def test_markup_is_taken_away() -> None:
    assert "‹|im_end|›" in four_steps(changed("quiet bays", "quiet <|im_end|> bays"))


@pytest.mark.parametrize(
    ("step", "count"),
    [
        ("(1) a; (2) b, c; (3) d", 3),
        ("1. a 2. b 3. c 4. d", 4),
        ("a; b; c", 3),
        ("a, b, and c", 3),
        ("a and b", 2),
        ("from the 1990s; 2 hours; calm", 3),
        ("", 0),
    ],
)
def test_criteria_are_counted_as_they_are_set_apart(step: str, count: int) -> None:
    assert len(criteria(step)) == count


@given(st.text(max_size=300))
def test_any_text_is_of_the_form_or_breaks_a_rule(text: str) -> None:
    rule = broken_rule(text)
    assert rule is None or (rule and rule in {broken_rule(text)})
    assert rule is not None or four_steps(four_steps(text)) == four_steps(text)


def test_a_draft_is_free_within_bounds() -> None:
    draft = "The user likes boats. " * 5
    assert free_words(f"\n {draft}\n\n<b>And bays.</b> ") == f"{draft.strip()}\n‹b›And bays.‹/b›"
    for text, rule in (
        ("", "fewer than 15 words"),
        ("Boats.", "fewer than 15 words"),
        ("boat " * 401, "over 400 words"),
    ):
        with pytest.raises(BrokenRuleError, match=rule):
            free_words(text)


@pytest.mark.parametrize("line", ["Step 1{}x", "**Step 1: a{}x", "{}x", "Step 1: a\n{}x", "Step {}x", "Step 1 ({}x"])
def test_a_hostile_line_costs_no_more_than_its_length(line: str) -> None:
    """Half a million blanks or stars take a moment; where matching went back over them they would take hours."""
    for filler in (" ", "*", "* "):
        assert broken_rule(line.format(filler * 250_000)) is not None
