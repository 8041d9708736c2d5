"""What can be said of one item."""

from __future__ import annotations

from mllmrec.data.sequences import Catalogue
from mllmrec.reasoning.profile.facets import Facet, facets_of
from mllmrec.records import Item


def facets(title: str, caption: str = "", **attributes: str) -> set[Facet]:
    catalogue = Catalogue([Item(item_id="1", title=title, attributes=tuple(attributes.items()))])
    return facets_of("1", catalogue, {"1": caption} if caption else {})


def test_an_item_is_described_by_columns_year_form_title_and_caption() -> None:
    assert facets("Moon II: Return (1996)", "A red boat.", main_genres="Sea|Drama") == {
        Facet("attribute", "main genre", "Sea"),
        Facet("attribute", "main genre", "Drama"),
        Facet("era", "", "1990s"),
        Facet("era", "", "late 1990s"),
        Facet("form", "", "a number in the title"),
        Facet("form", "", "a subtitle"),
        Facet("title", "", "moon"),
        Facet("title", "", "return"),
        Facet("picture", "", "red"),
        Facet("picture", "", "boat"),
        Facet("picture", "", "red boat"),
    }


def test_empty_and_overlong_values_say_nothing() -> None:
    assert facets(
        "Moon", brand="", blurb="a long description of what this is, far too long for one value", tag=" | "
    ) == {Facet("title", "", "moon")}


def test_an_item_without_title_has_only_its_caption() -> None:
    assert facets("", "A boat.") == {Facet("picture", "", "boat")}
    assert facets_of("9", Catalogue([]), {"9": "A boat."}) == {Facet("picture", "", "boat")}
