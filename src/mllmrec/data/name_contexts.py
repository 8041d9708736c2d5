"""Whether words that may be ordinary ones are written like a name where they occur.

A name stands in quotes, has a capital without beginning a sentence, a heading or a list item, has its year in brackets
behind it, is all that a clause says, or is what somebody watched, was recommended or would like next.
"""

from __future__ import annotations

import re

from mllmrec.data.title_spellings import TitleMatch

_QUOTES, _UNQUOTES = "\"'“‘«[(", "\"'”’»]),.;:!?"
_EMPHASIS = "*_"
_STOPS = ".!?:;•\n"
_BRACKETED_YEAR = re.compile(r"\s*[(\[]\s*\d{4}\b")
_CLAUSE_END = re.compile(r"[ \t]*(?:[.!?:;•\n]|\Z)")
_DASH = re.compile(r"[ \t]+[-–—]")
# What may stand between the beginning of a sentence and its first word: bullets, quotes, emphasis, numbers.
_OPENING = re.compile(r"(?:\A|[.!?:;•\n…\"“«‘]|\s[-–—]+(?=\s))[\s*_#>|+•–—\"'“‘«\[-]*(?:\(?\d+[.)])?[\s*_]*\Z")
_LOOK_BACK, _CLAUSE = 32, 80
_CLAUSE_STOP = re.compile(r"[.!?:;,\n…()\[\]\"“”«»]|\s[-–—]+\s")
_MARKUP = "*_'’‘`"


def _set(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


DETERMINERS = _set(
    "a an this that these those his her their its our my your some any no every each another many few several much "
    "more most all both such"
)
FUNCTION_WORDS = DETERMINERS | _set(
    "the and or but nor so if then than as of in on at to for from with without by about into over under up down out "
    "off after before again once here there when where while who whom which what why how i me you he him she it we us "
    "they them myself is am are was were be been being do does did has have had will would shall should can could may "
    "might must not too very just now only own same"
)
# Words that may follow a name at once; another one makes a phrase (casino lights).
_FOLLOWING = _set(
    "next because since as but for with then too now soon would will is was has fits should might could may seems "
    "comes came which who when where after before also instead again in on at to from by than afterwards tonight "
    "either rather even first followed over a the most best very so if while though although"
)
_COORDINATING = frozenset({"and", "or"})
_BEING = frozenset({"is", "was", "has"})
_AS_SUBJECT = _set("next would will fits should might could comes suits matches seems feels continues")
_CHOOSING = _set(
    "watch watched watching watches rewatch rewatched recommend recommended recommending recommends pick picked "
    "picking picks choose chose chosen choosing chooses select selected selecting rent rented try rated liked "
    "loved enjoyed preferred adored called named titled entitled movie film title choice"
)
_LIKING = _set("like love enjoy want prefer appreciate adore see favour favor find be")
_EXPECTING = _set("would will might may could should likely probably ll d surely")
_GUESSING = _set("perhaps maybe possibly probably say guess guesses predict predicts expect then next so")
# What comes before a name and seldom before what a film is about.
_LIKENING = _set(
    "similar-to akin-to close-to comparable-to sequel-to points-to point-to pointing-to go-for goes-for going-for "
    "spot-for time-for room-for vein-of spirit-of think-of thinks-of thinking-of"
)
_REMINDING = frozenset({"remind", "reminds", "reminded", "reminding", "reminiscent"})
_ANSWERS = _set("answer prediction pick choice guess candidate recommendation movie film title item one")
_FILMS = frozenset({"movies", "films", "titles", "movie", "film"})


def has_year(text: str, match: TitleMatch) -> bool:
    """Whether a year in brackets follows."""
    return bool(_BRACKETED_YEAR.match(text, match.stop))


def is_name(text: str, match: TitleMatch, word: tuple[int, int]) -> bool:
    """Whether `word`, the distinctive one of `match`, makes it a name; the words are ordinary otherwise."""
    return (
        has_year(text, match)
        or _is_quoted(text, match)
        or has_capital(text, match, word)
        or _fills_clause(text, match)
        or _is_chosen(text, match)
    )


def is_written_as_title(text: str, match: TitleMatch) -> bool:
    """Whether several words are written like the name of something: capitals in all that are no function words."""
    if has_year(text, match) or _is_quoted(text, match) or _fills_clause(text, match):
        return True
    distinctive = [span for span in match.words if text[slice(*span)].casefold() not in FUNCTION_WORDS]
    capitals = [text[start].isupper() or text[start].isdigit() for start, _ in distinctive]
    return all(capitals) and (len(distinctive) > 1 or has_capital(text, match, (distinctive or match.words)[0]))


def is_rare_name(text: str, match: TitleMatch, word: tuple[int, int]) -> bool:
    """The same of a word that is in no other title, which may yet be a common noun (`set in a smoky casino`).

    It is a name also where its script or spelling knows no small letters, in a possessive without a determiner, and as
    the subject that begins a sentence.
    """
    letters = text[slice(*word)]
    if letters.casefold() == letters.upper().casefold() and letters.lower() == letters.upper():
        return True
    if any(char.isdigit() for char in letters) or is_name(text, match, word):
        return True
    if letters.casefold().endswith("'s"):
        return not _has_determiner(text, TitleMatch(*word, (word,)))
    if _is_object(text, match):
        return True
    after, behind = _words_after(text, match), text[match.stop :].lstrip(_MARKUP + " *")
    return letters[0].isupper() and (after[0] in _AS_SUBJECT | _BEING if after else behind[:1] in {":", "("})


def _is_object(text: str, match: TitleMatch) -> bool:
    """Whether a word in the singular is all that somebody likes: a common noun would have a determiner."""
    before, after = _words_before(text, match), _words_after(text, match)
    likes = bool(before) and before[-1].removesuffix("s") in _LIKING
    return likes and text[match.stop - 1] != "s" and (not after or after[0] in _FOLLOWING)


def _has_determiner(text: str, match: TitleMatch) -> bool:
    """Whether a determiner stands before, with at most two adjectives between."""
    for before in reversed(_words_before(text, match)[-3:]):
        if before in DETERMINERS or before in {"the", "one"}:
            return True
        if before in FUNCTION_WORDS or before in _CHOOSING or before in _LIKING or before.endswith(("s", "ed")):
            return False
    return False


def has_capital(text: str, match: TitleMatch, word: tuple[int, int]) -> bool:
    """Whether a word has a capital without beginning a sentence, and isn't part of a longer phrase with capitals."""
    start, stop = word
    if not text[start].isupper() or _begins_sentence(text, start):
        return False
    after = text[match.stop : match.stop + 2]
    if after[:1] in _EMPHASIS and text[match.start - 1 : match.start] in _EMPHASIS:
        return False
    longer = after[:1] == " " and after[1:].isupper() and text[stop - 2 : stop].casefold() != "'s"
    return not longer


def _begins_sentence(text: str, start: int) -> bool:
    """Bullets, emphasis, quotes and numbers in front of a sentence are no part of it."""
    begin = max(0, start - _LOOK_BACK)
    within = "x" if begin else ""
    return bool(_OPENING.search(within + text[begin:start]))


def _is_quoted(text: str, match: TitleMatch) -> bool:
    """In quotes or brackets; in emphasis, where that isn't the beginning of a phrase (`**Big** themes`)."""
    before, after = text[match.start - 1 : match.start] if match.start else "", text[match.stop : match.stop + 1]
    if not before or not after:
        return False
    if before in _EMPHASIS and after in _EMPHASIS:
        following = _words_after(text, match)
        if _begins_sentence(text, match.start):
            return bool(following) and following[0] in _AS_SUBJECT
        return not following or following[0] in _FOLLOWING | _COORDINATING
    if before in _QUOTES and after in _UNQUOTES:
        return not _BRACKETED_YEAR.match(text, match.start - 1)
    return False


def _fills_clause(text: str, match: TitleMatch) -> bool:
    """Whether words stand between stops. `Mood: ...` at the start of a line is a label, `2. ...` a number."""
    start, stop = match.start, match.stop
    while start and text[start - 1] in " \t*_\"'“‘«[":
        start -= 1
    while stop < len(text) and text[stop] in "*_\"'”’»]":
        stop += 1
    before, line = text[start - 1 : start] if start else "", text[text.rfind("\n", 0, start) + 1 : start].strip()
    if line and not line.strip("-+>#–—*"):
        before = "\n"
    if before and before not in _STOPS:
        return False
    behind = _CLAUSE_END.match(text, stop)
    if behind is None:
        return before == ":" and bool(_DASH.match(text, stop))
    return before == ":" or not (behind[0].endswith(":") or text[match.start : match.stop].isdigit())


def _is_chosen(text: str, match: TitleMatch) -> bool:
    """Whether the words are what is watched, recommended, likened or expected to be liked, and nothing follows them."""
    before, after = _words_before(text, match), _words_after(text, match)
    if before and before[-1] == "the":
        before = before[:-1]
    following = after[0] if after else ""
    if following in _AS_SUBJECT and (not before or before[-1] not in FUNCTION_WORDS or before[-1] in _COORDINATING):
        return True
    if (following in _BEING and _ANSWERS.intersection(after[1:4])) or (before[-1:] == ["so"] and after == ["it", "is"]):
        return True
    if not before or not (not after or following in _FOLLOWING | _COORDINATING or following.endswith("ly")):
        return False
    if before[-1] in _REMINDING or (before[-1] == "of" and _REMINDING.intersection(before[-4:])):
        return True
    if "-".join(before[-2:]) in _LIKENING or (before[-1] in {"as", "like"} and _FILMS.intersection(before[-3:])):
        return True
    if following in _COORDINATING and after[1:2] != ["then"]:
        return False
    if before[-1] in {"is", "be", "was"} and _ANSWERS.intersection(before[-5:]):
        return True
    if before[-1] in _CHOOSING or (before[-1] in _GUESSING and not after):
        return True
    return before[-1] in _LIKING and bool(_EXPECTING.intersection(before[-5:]))


def _words_before(text: str, match: TitleMatch) -> list[str]:
    """The words of the clause before an occurrence, as far as they count."""
    clause = _CLAUSE_STOP.split(text[max(0, match.start - _CLAUSE) : match.start].rstrip(_MARKUP))[-1]
    return [word.strip(_MARKUP) for word in clause.casefold().replace("'", " ").split()]


def _words_after(text: str, match: TitleMatch) -> list[str]:
    clause = _CLAUSE_STOP.split(text[match.stop : match.stop + _CLAUSE].lstrip(_MARKUP), maxsplit=1)[0]
    return clause.casefold().split()
