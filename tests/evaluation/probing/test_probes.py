"""Probes expose planted models: each goes by one thing alone, and only the probe of that thing moves."""

from __future__ import annotations

from typing import Any

import pytest
from planted import CAPTIONS, COLOURS, COUNTS, ITEMS, THEMES, Seen, condition_scorer, probed, read, theme_of, world

from mllmrec.data.draws import uniform
from mllmrec.data.prompts import Renderer
from mllmrec.evaluation.probing.conditions import HINTED
from mllmrec.evaluation.probing.plan import NO_CAPTIONS, NO_TRACES, HintedExamples
from mllmrec.records import RankingExample

CHANGES = ("shuffled", "last-item", "no-history", "caption-swap", "title-mask")


def by_position(seen: Seen) -> list[float]:
    return [-float(slot) for slot, _ in enumerate(seen.candidates)]


def by_popularity(seen: Seen) -> list[float]:
    return [float(COUNTS[line.item]) for line in seen.candidates]


def by_title(seen: Seen) -> list[float]:
    """Whatever shares its title's first word with the last item chosen."""
    last = seen.history[-1].title.split()[0] if seen.history else ""
    return [float(line.title.split()[0] == last) for line in seen.candidates]


def by_caption(seen: Seen) -> list[float]:
    last = seen.history[-1].caption if seen.history else None
    return [float(line.caption == last) for line in seen.candidates]


def by_id(seen: Seen) -> list[float]:
    """A table of which id goes with the last one: neither words nor pictures are read."""
    last = theme_of(seen.history[-1].item) if seen.history else ""
    return [float(theme_of(line.item) == last) for line in seen.candidates]


def by_hint(seen: Seen) -> list[float]:
    return [float(line.title.split()[0] in seen.hint) for line in seen.candidates]


def by_any_history(seen: Seen) -> list[float]:
    """How many items of the history share the theme, in whatever order they came."""
    themes = [line.title.split()[0] for line in seen.history]
    return [float(themes.count(line.title.split()[0])) for line in seen.candidates]


def moved(facts: dict[str, Any], probe: str, metric: str = "NDCG@3") -> float:
    return float(facts["probes"][probe]["metrics"][metric]["difference"]["value"])


def is_still(facts: dict[str, Any], probe: str) -> bool:
    """Whether not one figure of a probe moved at all."""
    found = facts["probes"][probe]
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    return found["first_choice_kept"]["value"] == 1.0 and all(
        told["difference"] == nothing for told in found["metrics"].values()
    )


def test_a_planted_reader_reads_the_real_prompt() -> None:
    example = world(1)[0]
    opened_scorer = condition_scorer(by_title)
    renderer: Renderer[list[int]] = opened_scorer._encoders[False, False].renderer
    seen = read(renderer.text(example, hint=None))
    assert [line.item for line in seen.history] == list(example.history)
    assert [line.item for line in seen.candidates] == list(example.candidates)
    assert [line.caption for line in seen.candidates] == [CAPTIONS[item] for item in example.candidates]


def test_a_model_that_goes_by_position_is_exposed() -> None:
    """Right when the target stands first and never else; its first choice is another one in every rotation."""
    facts = probed(by_position)
    found = facts["probes"]["position"]
    assert [slot["HR@1"]["value"] for slot in found["slots"]] == [1.0] + [0.0] * 9
    assert [slot["first_choices"]["value"] for slot in found["slots"]] == [1.0] + [0.0] * 9
    assert [slot["uniform"] for slot in found["slots"]] == [0.1] * 10
    assert found["range"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["range_p"] == found["choices_range_p"] == 1 / 1001
    assert found["first_choice_kept"]["value"] == 0.0
    assert "HR@1 is 0.000 with the target in slot 2 and 1.000 in slot 1, a range of 1.000" in found["says"]
    assert all(is_still(facts, probe) for probe in CHANGES)
    assert facts["probes"]["popularity"]["log_popularity"]["agreement"]["high"] < 0.25


def test_a_model_that_goes_by_popularity_is_exposed() -> None:
    facts = probed(by_popularity)
    found = facts["probes"]["popularity"]
    lifts = found["log_popularity"]
    assert lifts["first_choice_lift"] == lifts["most_popular_lift"]
    assert lifts["first_choice_lift"]["low"] > lifts["target_lift"]["high"]
    assert lifts["first_choice_minus_target"]["low"] > 0
    assert lifts["agreement"]["value"] == pytest.approx(1.0)
    everyone, head, _, tail = found["groups"]
    assert {told["difference"]["value"] for told in everyone["metrics"].values()} == {0.0}
    assert head["metrics"]["HR@1"]["model"]["value"] > 0.9 > 0.2 > tail["metrics"]["HR@1"]["model"]["value"]
    assert sum(group["num_users"] for group in found["groups"][1:]) == everyone["num_users"] == 120
    position = facts["probes"]["position"]
    assert position["range"]["value"] == 0.0
    assert position["range_p"] == 1.0
    assert position["first_choice_kept"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert is_still(facts, "no-history")
    assert "no use of the history was found" in facts["probes"]["no-history"]["says"]


def test_a_model_of_the_last_title_needs_that_title_and_nothing_else() -> None:
    facts = probed(by_title)
    assert facts["metrics"]["HR@1"]["value"] == 1.0
    assert is_still(facts, "last-item")
    assert is_still(facts, "caption-swap")
    for probe in ("shuffled", "no-history", "title-mask"):
        assert facts["probes"][probe]["metrics"]["NDCG@3"]["difference"]["high"] < -0.2
    assert facts["probes"]["no-history"]["metrics"]["HR@1"]["changed"]["value"] == pytest.approx(0.1)
    assert "titles are used" in facts["probes"]["title-mask"]["says"]


def test_a_model_that_wavers_without_regard_to_slots_is_not_taken_for_one_that_goes_by_position() -> None:
    """Its choice hangs on the order of the whole list, so that slots differ a little, by chance."""

    def by_hash_of_the_list(seen: Seen) -> list[float]:
        shown = " ".join(line.item for line in seen.candidates)
        return [uniform(0, shown, line.item) for line in seen.candidates]

    found = probed(by_hash_of_the_list, ["position"])["probes"]["position"]
    assert found["range"]["value"] > 0.02
    assert found["range_p"] > 0.05
    assert found["choices_range_p"] > 0.05
    assert found["first_choice_kept"]["value"] == pytest.approx(0.1, abs=0.03)


def test_swapped_captions_move_a_reader_of_captions_and_of_nothing_else() -> None:
    facts = probed(by_caption)
    assert facts["metrics"]["HR@1"]["value"] == 1.0
    assert is_still(facts, "title-mask")
    assert facts["probes"]["caption-swap"]["metrics"]["HR@1"]["difference"]["high"] < -0.5
    assert "what images show is used" in facts["probes"]["caption-swap"]["says"]
    assert "images" not in facts["probes"]["title-mask"]["says"]


def test_a_model_of_ids_needs_neither_words_nor_pictures() -> None:
    facts = probed(by_id)
    assert facts["metrics"]["HR@1"]["value"] == 1.0
    assert is_still(facts, "title-mask")
    assert is_still(facts, "caption-swap")
    assert moved(facts, "no-history") < -0.5


def test_a_model_that_ignores_order_is_told_from_one_that_needs_older_items() -> None:
    facts = probed(by_any_history)
    assert is_still(facts, "shuffled")
    assert moved(facts, "last-item") > 0, "older items only mislead it, as they are chance here"
    assert "older items mislead" in facts["probes"]["last-item"]["says"]


def test_prompts_without_captions_have_none_to_swap() -> None:
    facts = probed(by_title, captions={})
    assert facts["probes"]["caption-swap"]["not_applicable"] == NO_CAPTIONS
    assert facts["probes"]["hint"]["not_applicable"] == NO_TRACES
    assert facts["cost"]["evaluations"] == 1 + 9 + 3 + 1


def hinted_world() -> HintedExamples:
    examples = world(70, split="train")
    words = {example.example_id: f"Step 4: {theme_of(example.target_id)} next" for example in examples}
    return HintedExamples(examples=examples, hints=words)


def test_a_reader_of_hints_is_exposed_on_training_examples() -> None:
    facts = probed(by_hint, ["hint"], hinted=hinted_world())
    found = facts["probes"]["hint"]
    assert found["num_examples"] == 70
    assert found["metrics"]["HR@1"]["plain"]["value"] == pytest.approx(0.1)
    assert found["metrics"]["HR@1"]["changed"]["value"] == 1.0
    assert "hints help" in found["says"]
    assert found["evaluations"] == pytest.approx(2 * 70 / 120, abs=1e-3)
    assert is_still(probed(by_title, ["hint"], hinted=hinted_world()), "hint")


def test_a_hint_outside_the_train_split_is_refused() -> None:
    example = world(1)[0]
    with pytest.raises(AssertionError, match="hints are for examples of the train split"):
        condition_scorer(by_hint).score(HINTED, [example], {example.example_id: "a hint"})


@pytest.mark.parametrize("rotations", [2, 5, 10, 30])
def test_scores_come_back_in_the_order_of_the_examples_own_list(rotations: int) -> None:
    """Whatever a rotation shows first, what is told of a candidate is its own."""
    facts = probed(by_popularity, ["position"], rotations=rotations)
    found = facts["probes"]["position"]
    assert found["rotations"] == min(rotations, 10)
    assert found["first_choice_kept"]["value"] == 1.0
    assert found["rotations_range"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert facts["cost"]["evaluations"] == min(rotations, 10)


def long_lists(count: int, num_users: int = 30) -> list[RankingExample]:
    return [
        RankingExample(
            example_id=f"e{user}",
            user_id=f"{user}",
            history=("1",),
            candidates=tuple(ITEMS[(user + step) % len(ITEMS)] for step in range(count)),
            target_id=ITEMS[(user + 3) % len(ITEMS)],
            split="test",
        )
        for user in range(num_users)
    ]


def test_slots_of_long_lists_are_told_in_tenths() -> None:
    """Forty candidates turned ten ways: each target visits every tenth once, and the first tenth wins all."""
    found = probed(by_position, ["position"], long_lists(40))["probes"]["position"]
    assert [slot["slot"] for slot in found["slots"]][:2] == ["0-10 %", "10-20 %"]
    assert [slot["uniform"] for slot in found["slots"]] == pytest.approx([0.1] * 10)
    assert [slot["first_choices"]["value"] for slot in found["slots"]] == [1.0] + [0.0] * 9
    assert [slot["HR@1"]["value"] for slot in found["slots"]] == [0.0] * 10, "targets stand at 3, 7, 11 ..., never at 0"


def test_lists_without_their_target_tell_no_accuracy() -> None:
    lost = [RankingExample(**{**vars(example), "target_id": "1"}) for example in long_lists(4, 8)][4:]
    found = probed(by_position, ["position", "popularity"], lost)["probes"]
    assert {slot["HR@1"] for slot in found["position"]["slots"]} == {None}
    assert "no list holds its target" in found["position"]["says"]
    assert found["popularity"]["groups"][0]["metrics"]["HR@1"]["model"]["value"] == 0.0


def test_themes_and_colours_are_one_to_one() -> None:
    assert len(set(COLOURS.values())) == len(THEMES)
