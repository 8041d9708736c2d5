"""Lessons are deterministic, answerable, and about nothing in particular."""

from __future__ import annotations

import csv
import math
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo_backbone.curriculum import curriculum, draw_shapes
from demo_backbone.judgements import (
    FALLS,
    HIGHEST,
    MARGIN,
    STRONGEST,
    WEAKEST,
    Numbers,
    Person,
    Traits,
    by_number,
    judged,
)
from demo_backbone.lessons import CUES, Cue, Lesson, Shape, make_lesson
from demo_backbone.words import made_up_word, made_up_words
from mllmrec.data.draws import generator
from mllmrec.demo.habits import write_world
from mllmrec.demo.world import World

SHAPES = st.builds(
    Shape,
    history=st.integers(1, 8),
    candidates=st.integers(2, 10),
    cue=st.sampled_from(CUES),
    title_words=st.integers(1, 3),
    caption_words=st.sampled_from((6, 12, 20)),
    noise=st.sampled_from((0.0, 0.3)),
)
SEEDS = st.integers(0, 2**32)


def words_of(lesson: Lesson, item: str) -> set[str]:
    return {word for word in lesson.titles[item].split() if not word.isdigit()}


def shared_words(lesson: Lesson) -> set[str]:
    """Title words that the whole history shares."""
    return set.intersection(*(words_of(lesson, item) for item in lesson.example.history))


@given(SEEDS, SHAPES)
def test_a_lesson_has_the_shape_asked_for_and_one_right_answer(seed: int, shape: Shape) -> None:
    lesson = make_lesson(random.Random(seed), shape)
    example = lesson.example
    assert (len(example.history), len(example.candidates)) == (shape.history, shape.candidates)
    assert example.candidates.count(example.target_id) == 1
    items = [*example.history, *example.candidates]
    assert len(set(items)) == len(items) == len(lesson.titles)
    assert all(1 <= len(item) <= 4 and item.isdigit() for item in items)
    assert all(len(words_of(lesson, item)) <= shape.title_words for item in items)
    assert set(lesson.captions) <= set(items)
    assert all(1 <= len(caption.split()) <= shape.caption_words for caption in lesson.captions.values())


@given(SEEDS, SHAPES)
def test_the_same_seed_makes_the_same_lesson(seed: int, shape: Shape) -> None:
    assert make_lesson(random.Random(seed), shape) == make_lesson(random.Random(seed), shape)


@given(SEEDS)
def test_the_title_cue_is_a_word_that_history_and_answer_alone_have(seed: int) -> None:
    lesson = make_lesson(random.Random(seed), Shape(history=6, candidates=10, title_words=1))
    (word,) = shared_words(lesson)
    having = [item for item in lesson.example.candidates if word in words_of(lesson, item)]
    assert having == [lesson.example.target_id]


@given(SEEDS)
def test_the_last_cue_is_a_word_of_the_last_item_alone(seed: int) -> None:
    lesson = make_lesson(random.Random(seed), Shape(history=5, candidates=8, cue="last", title_words=1))
    *earlier, last = (words_of(lesson, item) for item in lesson.example.history)
    assert last not in earlier
    assert [i for i in lesson.example.candidates if words_of(lesson, i) == last] == [lesson.example.target_id]


@given(SEEDS)
def test_of_mixed_tastes_the_answer_has_one(seed: int) -> None:
    lesson = make_lesson(random.Random(seed), Shape(history=6, candidates=10, cue="mixed", title_words=1))
    liked = {frozenset(words_of(lesson, item)) for item in lesson.example.history}
    assert len(liked) <= 2
    fitting = [item for item in lesson.example.candidates if frozenset(words_of(lesson, item)) in liked]
    assert fitting == [lesson.example.target_id]


@given(SEEDS)
def test_where_both_count_no_other_candidate_has_both(seed: int) -> None:
    """With one-word titles and captions by main colour, both traits can be read off."""
    shape = Shape(history=4, candidates=8, cue="both", title_words=1, caption_words=3)
    lesson = make_lesson(random.Random(seed), shape)
    (word,) = shared_words(lesson)
    captions = [set(lesson.captions[item].lower().strip(".").split()) for item in lesson.example.history]
    assert set.intersection(*captions, set(lesson.captions[lesson.example.target_id].lower().strip(".").split()))
    rivals = [i for i in lesson.example.candidates if i != lesson.example.target_id and word in words_of(lesson, i)]
    firsts = {lesson.captions[item].split(" (")[0] for item in lesson.example.history}
    if all(" (" in caption for caption in lesson.captions.values()):
        assert len(firsts) == 1
        assert firsts.isdisjoint(lesson.captions[item].split(" (")[0] for item in rivals)


@given(SEEDS)
def test_a_pair_of_words_and_a_trait_make_the_answer(seed: int) -> None:
    """The history has either of two words; of the candidates that have one, the answer alone has the trait."""
    shape = Shape(history=6, candidates=8, cue="pair", title_words=1, caption_words=3)
    lesson = make_lesson(random.Random(seed), shape)
    liked = {frozenset(words_of(lesson, item)) for item in lesson.example.history}
    pair = liked | {frozenset(words_of(lesson, lesson.example.target_id))}
    assert len(pair) <= 2
    rivals = [
        item
        for item in lesson.example.candidates
        if item != lesson.example.target_id and frozenset(words_of(lesson, item)) in pair
    ]
    firsts = {lesson.captions[item].split(" (")[0] for item in lesson.example.history}
    if all(" (" in caption for caption in lesson.captions.values()):
        assert firsts == {lesson.captions[lesson.example.target_id].split(" (")[0]}
        assert firsts.isdisjoint(lesson.captions[item].split(" (")[0] for item in rivals)


@given(SEEDS, st.sampled_from(("title", "both")))
def test_noise_leaves_the_majority_to_the_taste(seed: int, cue: Cue) -> None:
    shape = Shape(history=7, candidates=6, cue=cue, caption_words=6, noise=0.9, title_words=1)
    lesson = make_lesson(random.Random(seed), shape)
    answer = words_of(lesson, lesson.example.target_id)
    assert sum(words_of(lesson, item) == answer for item in lesson.example.history) >= 4


def test_no_word_is_one_of_the_demo_world(tmp_path: Path) -> None:
    """Neither made up, nor in the lessons of any level: what the backbone was trained on knows nothing of the demo."""
    write_world(World(num_users=20), tmp_path)
    with (tmp_path / "titles.csv").open(encoding="utf-8", newline="") as file:
        titles = [row["title"] for row in csv.DictReader(file)]
    known = {word.lower() for title in titles for word in title.split() if word.isalpha()}
    assert len(known) > 10
    rng = random.Random(0)
    assert known.isdisjoint(made_up_word(rng) for _ in range(30_000))
    levels = curriculum(1)
    for number in range(len(levels)):
        for key in range(40):
            draws = generator(0, "test", f"{number}/{key}")
            for shape in draw_shapes(draws, levels, number):
                titles = make_lesson(draws, shape).titles.values()
                assert known.isdisjoint(word.lower() for title in titles for word in title.split() if word.isalpha())


def test_words_are_different_and_fresh() -> None:
    words = made_up_words(random.Random(1), 500)
    assert len(set(words)) == 500
    assert all(3 <= len(word) <= 9 and word.isalpha() and word.islower() for word in words)
    assert len({made_up_word(random.Random(seed)) for seed in range(1000)}) > 850


def test_a_level_revises_what_came_before_it() -> None:
    levels = curriculum(10)
    for number in range(1, len(levels)):
        own, earlier = levels[number].shapes, {shape for level in levels[:number] for shape in level.shapes}
        steps = [draw_shapes(random.Random(seed), levels, number) for seed in range(200)]
        assert {len(step) for step in steps} == {levels[number].parts}
        shapes = [shape for step in steps for shape in step]
        assert sum(shape in own for shape in shapes) / len(shapes) == pytest.approx(0.75, abs=0.1)
        assert set(shapes) <= {*own, *earlier}
        assert set(shapes) >= set(own)


@given(SEEDS)
def test_by_number_the_answer_lies_furthest_to_the_end_that_the_history_leans_to(seed: int) -> None:
    numbers = Numbers(random.Random(seed))
    history, answer, others = by_number(random.Random(seed), history=6, candidates=10, titles=14, captions=5)
    (*past, ours), theirs = (number_of(item) for item in [*history, answer]), [number_of(item) for item in others]
    middle = (1 + numbers.highest) / 2
    if numbers.from_below:
        assert sum(past) / 6 < middle
        assert ours < min(theirs)
    else:
        assert sum(past) / 6 > middle
        assert ours > max(theirs)


@given(SEEDS, st.booleans())
def test_a_judgement_goes_by_what_counts_for_that_person(seed: int, captioned: bool) -> None:
    """The same draws make the same person, for whom the answer beats every other candidate by the margin."""
    kinds = {"titles": 14, "captions": 5}
    person = Person(random.Random(seed), **kinds, captioned=captioned)
    draws = {"history": 6, "candidates": 10, "noise": 0.15, **kinds}
    history, answer, others = judged(random.Random(seed), **draws, captioned=captioned)
    assert (len(history), len(others)) == (6, 9)

    def by_hand(item: Traits) -> float:
        count = person.word if item.title < person.num_liked else 0.0
        count += person.trait if captioned and item.caption == 0 else 0.0
        low = person.numbers.from_below
        steps = number_of(item) - 1 if low else person.numbers.highest - number_of(item)
        return count + person.numbers.strength / (1 + steps) ** person.numbers.fall

    assert all(by_hand(answer) >= by_hand(item) + MARGIN - 1e-9 for item in others)


def test_histories_lean_as_much_as_something_counts() -> None:
    """What counts little is in more than half of what a person chose, and what counts much in a tenth more at least."""

    def share(low: float, high: float, aspect: str) -> float:
        found, total = 0, 0
        for seed in range(3000):
            person = Person(random.Random(seed), 14, 5, captioned=True)
            if low <= getattr(person, aspect) < high:
                rng = random.Random(seed + 10_000)
                items = [person.chosen(rng) for _ in range(4)]
                found += sum(item.title < person.num_liked if aspect == "word" else item.caption == 0 for item in items)
                total += len(items)
        return found / total

    for aspect in ("word", "trait"):
        weak, strong = share(WEAKEST, 2.5, aspect), share(4.0, STRONGEST, aspect)
        assert 0.5 < weak < strong - 0.1 < 0.95, (aspect, weak, strong)


def test_no_law_is_practised_more_than_another() -> None:
    """What counts is drawn anew for each lesson, on the scale of orders of size, and each aspect leads as often."""
    people = [Person(random.Random(seed), 14, 5, captioned=True) for seed in range(6000)]
    counts = [(person.word, person.trait, person.numbers.strength) for person in people]
    assert all(WEAKEST <= value <= STRONGEST for values in counts for value in values)
    middle = math.sqrt(WEAKEST * STRONGEST)
    for values in zip(*counts, strict=True):
        assert sum(value < middle for value in values) / len(people) == pytest.approx(0.5, abs=0.03)
    leaders = Counter(values.index(max(values)) for values in counts)
    assert all(count / len(people) == pytest.approx(1 / 3, abs=0.03) for count in leaders.values())
    liked = Counter(person.num_liked for person in people)
    assert all(liked[number] / len(people) == pytest.approx(1 / 3, abs=0.03) for number in (1, 2, 3))
    falls = [person.numbers.fall for person in people]
    assert min(falls) >= FALLS[0]
    assert max(falls) <= FALLS[1]
    assert sum(falls) / len(falls) == pytest.approx(sum(FALLS) / 2, abs=0.02)
    assert sum(person.numbers.from_below for person in people) / len(people) == pytest.approx(0.5, abs=0.03)


def test_noise_is_the_share_of_a_history_that_follows_nothing() -> None:
    """All noise: the trait is there as often as any other, 1 in 5. None: in most items. Half: halfway."""

    def share(noise: float) -> float:
        drawn = (judged(random.Random(seed), 6, 10, 14, 5, noise, captioned=True)[0] for seed in range(1500))
        return sum(item.caption == 0 for history in drawn for item in history) / (6 * 1500)

    none, half, whole = share(0.0), share(0.5), share(1.0)
    assert whole == pytest.approx(0.2, abs=0.02)
    assert none > 0.7
    assert half == pytest.approx((none + whole) / 2, abs=0.03)


def number_of(item: Traits) -> int:
    assert item.number is not None
    return item.number


@given(SEEDS, st.sampled_from(("number", "judged")))
def test_numbers_stand_behind_titles_but_for_the_first(seed: int, cue: Cue) -> None:
    lesson = make_lesson(random.Random(seed), Shape(history=6, candidates=10, cue=cue))
    numbers = [int(title.split()[-1]) for title in lesson.titles.values() if title.split()[-1].isdigit()]
    assert all(2 <= number <= HIGHEST[1] for number in numbers)
