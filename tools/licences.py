"""What an installed mllmrec brings with it, and under which licences, from the packages' own metadata:

python tools/licences.py > docs/licences.md
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT, EXTRAS = "mllmrec-r1", ("serve", "baselines", "gguf", "track")
SHORT = 60
"""Characters; a longer field is a whole licence, not its name."""


def main() -> None:
    print("# Licences of what is installed\n")
    print(
        f"The packages that mllmrec needs with the extras {', '.join(EXTRAS)}, and the licence that each names in its"
    )
    print("metadata. `make licences` writes this page anew.\n")
    print("| package | licence |\n|---|---|")
    for name, licence in sorted(licences().items()):
        print(f"| {name} | {licence} |")


def licences() -> dict[str, str]:
    """The licence of every package that the project and its extras need here, by name; those not installed left out."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(PROJECT, extra) for extra in ("", *EXTRAS)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        if name != PROJECT:
            found[name] = licence_of(package)
        waiting += needs(package, extra)
    return found


def needs(package: Distribution, extra: str) -> Iterator[tuple[str, str]]:
    """(name, extra) of what `package` needs when it is installed with `extra` ("" for none)."""
    for line in package.requires or []:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": extra}):
            for wanted in ("", *need.extras):
                yield canonicalize_name(need.name), wanted


def licence_of(package: Distribution) -> str:
    """The licence expression, else the classifiers, else the field's text where it is a name."""
    fields = package.metadata.get_all
    expression = "".join(fields("License-Expression") or [])
    classifiers = fields("Classifier") or []
    classified = ", ".join(line.split(" :: ")[-1] for line in classifiers if line.startswith("License :: "))
    text = "".join(fields("License") or [])
    named = text if len(text) <= SHORT and "\n" not in text else ""
    return expression or classified or named or "not named; see its licence file"


if __name__ == "__main__":
    main()
