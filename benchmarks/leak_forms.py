"""How many titles are found in each form that a model may write them in, and how many ordinary sentences are taken
for one.

    python benchmarks/leak_forms.py TITLES.csv

Forms are made of the catalogue's own titles, in five sentences in turn. A neutral sentence uses a word of a title in
its ordinary sense and is judged against that title, which is the hardest case. The promises are at least 97 % of each
form and at most 2 % of the neutral sentences. Captions may be given as a second file: their words are ordinary.
"""

from __future__ import annotations

import random
import re
import sys
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from mllmrec.data.naming import Naming
from mllmrec.data.sequences import read_catalogue

NEUTRAL, SEED = 2000, 7
SENTENCES = (
    "They would probably enjoy {} next.",
    "Step 4: {}.",
    "It reminds them of {}, which they rated highly.",
    "The viewer liked {} because of its mood.",
    "Given these tastes, the next choice would be {}",
)
POSSESSIVES = (
    "They would love {} mood and pace.",
    "The tastes point to {} kind of story.",
    "With {} ending in mind, they go on.",
    "This is close to {} tone, dark and slow",
    "The viewer liked {} cast because it was fresh.",
)
ARTICLE = re.compile(r"(.+), (The|A|An)\Z")
ROMAN = {"II": "2", "III": "3", "IV": "4", "V": "5", "VI": "6", "VII": "7", "VIII": "8"}
# Ordinary words that are titles by themselves, or the only telling word of one.
NOUNS = (
    "abyss airport alien alligator amateur ape apple apostle arrival assassin assignment associate asylum avalanche "
    "bachelor bat beach bean bear belly blade boat bodyguard boomerang burglar butterfly cabaret candidate casino "
    "castle celebration celebrity cell chamber champ character circus city client clue cobra cocoon contender "
    "conversation country crash crew crow crucible cruise cube cup desperado diner dinosaur diva earthquake "
    "election faculty fan firm flirt fly freeway fugitive funeral gambler game garden gate general getaway ghost "
    "giant gladiator graduate groove guardian gypsy hero hook house hunger hurricane insider instinct jackal juror "
    "kid killer labyrinth legend lifeboat loser machine mask matchmaker maverick messenger meteor mirror mission "
    "monster mother mummy muse negotiator net network omen outbreak outlaw panther parasite pest phantom piano "
    "picnic platoon player postman predator priest producer program promise prophecy quest raven relic river rock "
    "rollercoaster rope saint scout scream shadow shower siege silence soldier specialist spider sphere splash "
    "stalker sting stranger tarantula thief tombstone traveller trial trick twister verdict virus visitor volcano "
    "watcher wedding wife willow witness wolf"
)
MASS = (
    "affliction addiction aliens bandits bananas bats birds blackmail bliss boys clerks commandments contempt "
    "country daylight deliverance diamonds endurance faces fear fire fury glory gossip grease hackers happiness "
    "hate heat heaven hunger idiots innocents insomnia kids killers life limelight malice misery nightmares oxygen "
    "parenthood persuasion poison rain rapture ridicule romance roommates sabotage shopping singles sirens skulls "
    "smoke sneakers speed steel sunshine suspicion thieves toys trust twilight vampires visitors volunteers wings "
    "wisdom witnesses"
)
QUALITIES = (
    "beautiful big careful clueless faithful fallen fearless flawless fresh gothic hard heavy hidden hot incognito "
    "mighty naked natural notorious powder professional reckless ripe safe senseless speechless thinner ugly "
    "unforgettable wild"
)
ABOUT_NOUNS = (
    "{b} {w} stands in the middle of the scene.",
    "The story is set in {a} {w}.",
    "- {b} {w} at night, with warm light",
    "* Stories about {a} {w} and a family",
    "They like plots that turn on {a} {w}.",
    "**{b} {w}** gives the plot its shape.",
    "The camera stays close to this {w} for long.",
    "1. Scenes with {a} {w}, seen from afar",
    "Behind the {w} a crowd waits in the rain.",
    "Their taste goes to small casts, one {w}, and long silences.",
    "Mood: quiet, with {a} {w} in the background",
    "Every {w} in these films has a price.",
    "{W} scenes and quick cuts keep them awake.",
    "- {W} imagery, soft colours",
    "**{W}** themes run through the history.",
    "*{W}* motifs and bright posters",
    "They enjoy {w} scenes more than talk.",
    "A lonely {w} on a dusty road; muted tones.",
    "The posters share dark blues and {a} {w}.",
    "* **{W}** elements: often, but never loud",
    "The hero walks past some old {w} and smiles.",
    "Step 2: {W} stories with strong leads come up often.",
    "The {w}'s secret drives the plot.",
    "Step 3 - {W} aesthetics, neon and fog",
    "A film with {a} {w} at its heart would suit them.",
    "They liked the {w} and the music.",
    "The next one may well have {a} {w} in it.",
    "**{b} {w}**: the picture that comes back most",
    "The {w} scene, the red coat, the long shot.",
    "- **{W} stories** of every kind",
)
ABOUT_MASS = (
    "Many of these stories are full of {w}.",
    "- {W} and danger in equal parts",
    "They enjoy {w} and quiet humour.",
    "**{W}** and hope: both run through the history.",
    "The mood moves from {w} to hope.",
    "Tales of {w}, told with patience, suit them.",
    "* {W} in every scene",
    "The tone mixes {w} with tenderness.",
    "1. {W} of all kinds; bright posters",
    "No {w} here, only talk and long looks.",
    "Themes such as {w} and loss come back.",
    "Their taste leans on {w} more than on action.",
    "With {w} in the air, the mood darkens.",
    "They prefer {w} to talk.",
    "Love, {w} and loss come back in every story.",
    "There is a taste for {w} in the whole list.",
    "* {W}, rain and neon",
    "- Plenty of {w}; few words",
    "What stays is {w}, told without haste.",
    "Step 3: They look for {w} and closeness.",
    "{W} holds these stories together.",
    "Where there is {w}, there is music.",
)
ABOUT_QUALITIES = (
    "- {W} laughs",
    "**{W}** themes, soft light",
    "* {W} colours and a fast pace",
    "The posters are {w} and full of red.",
    "They like {w} heroes and quick cuts.",
    "{W} humour carries most of these stories.",
    "1. **{W}** characters, seldom alone",
    "Step 1: {W} stories, told with care.",
    "The mood is {w}, never cold.",
    "An honest, {w} tone runs through the list.",
    "What they like is {w} and slow.",
    "* Very {w}, with a wink",
    "Nothing here is {w}; all is calm.",
    "Step 2: The pictures look {w} and bright.",
)


def main(titles: str, captions: str | None = None) -> None:
    catalogue = read_catalogue(Path(titles))
    described = {item: each.title for item, each in read_catalogue(Path(captions)).items()} if captions else {}
    naming = Naming(catalogue, described)
    names = {item: _without_year(catalogue.title(item)) for item in catalogue}
    started = time.perf_counter()
    for form, make in FORMS.items():
        written = [(item, text) for item in names if (text := make(item, names[item]))]
        sentences = POSSESSIVES if form.startswith("possessive") else SENTENCES
        missed = [
            text
            for at, (item, text) in enumerate(written)
            if naming.names(sentences[at % len(sentences)].format(text), item) is None
        ]
        share = 1 - len(missed) / len(written)
        print(f"| {form} | {len(written)} | {share:.1%} | {', '.join(missed[:4])} |")
    neutral = list(neutral_sentences(names))
    wrong = [text for item, text in neutral if naming.names(text, item)]
    print(f"| neutral sentences | {len(neutral)} | {len(wrong) / len(neutral):.1%} | {' / '.join(wrong[:4])} |")
    print(f"{time.perf_counter() - started:.1f} s")
    if "--all" in sys.argv:
        print("\n".join(wrong))


def neutral_sentences(names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Items, and sentences with an ordinary word of their titles; half of the titles are that word alone."""
    rng = random.Random(SEED)
    among, alone = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for item, name in names.items():
        found = re.findall(r"[^\W\d]+", ARTICLE.sub(r"\1", re.sub(r"\s*\([^()]*\)", "", name)).casefold())
        for word in found:
            among[word].append(item)
        if len(found) == 1:
            alone[found[0]].append(item)
    kinds = [(NOUNS, ABOUT_NOUNS), (NOUNS, ABOUT_NOUNS), (MASS, ABOUT_MASS), (QUALITIES, ABOUT_QUALITIES)]
    for at in range(NEUTRAL):
        titled = alone if at % 2 else among
        listed, templates = kinds[at // 2 % len(kinds)]
        word, template = rng.choice([word for word in listed.split() if word in titled]), rng.choice(templates)
        article = "an" if word[0] in "aeiou" else "a"
        text = template.format(w=word, W=word.capitalize(), a=article, b=article.capitalize())
        yield rng.choice(titled[word]), text


def _without_year(title: str) -> str:
    return re.sub(r"\s*\(\d{4}\)\s*\Z", "", title)


def _natural(name: str) -> str:
    """`Matrix, The (La matrice)` as `The Matrix`."""
    name = re.sub(r"\s*\([^()]*\)", "", name)
    moved = ARTICLE.match(name)
    return f"{moved[2]} {moved[1]}" if moved else name


def _possessive(name: str) -> str:
    return name + ("'" if name.endswith("s") else "'s")


def _subtitle(name: str) -> str:
    parts = re.split(r": | - ", re.sub(r"\s*\([^()]*\)", "", name))
    return ARTICLE.sub(r"\1", parts[-1]) if len(parts) > 1 else ""


def _changed(change: Callable[[str], str]) -> Callable[[str, str], str]:
    """The natural name after a change; nothing where the change does nothing."""

    def make(_: str, name: str) -> str:
        natural = _natural(name)
        return changed if (changed := change(natural)) != natural else ""

    return make


def _to_arabic(name: str) -> str:
    return re.sub(r"(?<!^)\b(VIII|VII|VI|IV|III|II|V)\b", lambda match: ROMAN[match[0]], name)


def _to_roman(name: str) -> str:
    back = {value: key for key, value in ROMAN.items()}
    return re.sub(r"(?<=[a-z] )[2-8]\b(?!\s\d)", lambda match: back[match[0]], name)


def _plain(name: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))


def _article_behind(_: str, name: str) -> str:
    natural = _natural(name)
    article = re.match(r"(The|A|An) (.+)", natural)
    return f"{article[2]}, {article[1]}" if article else ""


FORMS: dict[str, Callable[[str, str], str]] = {
    "as it is read": lambda _, name: _natural(name),
    "as it is written": lambda _, name: name,
    "possessive": lambda _, name: _possessive(_natural(name)),
    "possessive of the title as written": lambda _, name: _possessive(re.sub(r"\s*\([^()]*\)", "", name)),
    "possessive with ’s": lambda _, name: f"{_natural(name)}’s",
    "subtitle alone": lambda _, name: _subtitle(name),
    "hyphen as a space": _changed(lambda name: re.sub(r"(?<=\w)-(?=\w)", " ", name)),
    "hyphen left out": _changed(lambda name: re.sub(r"(?<=\w)-(?=\w)", "", name)),
    "hyphens in place of spaces": _changed(lambda name: re.sub(r"(?<=\w) (?=\w)", "-", name)),
    "& as and": _changed(lambda name: name.replace("&", "and")),
    "and as &": _changed(lambda name: re.sub(r"\band\b", "&", name)),
    "III as 3": _changed(_to_arabic),
    "3 as III": _changed(_to_roman),
    "abbreviation without dots": _changed(lambda name: re.sub(r"(?<=\b[A-Z])\.\s?(?=[A-Z]\.)|(?<=\w)\.", "", name)),
    "small letters": _changed(str.lower),
    "capitals": _changed(str.upper),
    "without diacritics": _changed(_plain),
    "article behind": _article_behind,
    "article left out": _changed(lambda name: re.sub(r"\A(The|A|An) ", "", name)),
    "movie 12": lambda item, _: f"movie {item}",
    "[12]": lambda item, _: f"[{item}]",
    "Candidate 12": lambda item, _: f"Candidate {item}",
    "item 12": lambda item, _: f"item {item}",
}

if __name__ == "__main__":
    main(*[argument for argument in sys.argv[1:] if not argument.startswith("--")])
