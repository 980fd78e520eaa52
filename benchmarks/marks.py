"""Tables between the marks of a page, so that a number that stands there is one that stands in a file here.

The marks are comments of Markdown that name the part and say who writes it:

    <!-- runs: written by benchmarks/training/smollm2_weaver/table.py -->

    | run | updates | ...

    <!-- end of runs -->
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

Pages = Mapping[Path, Mapping[str, str]]
"""For each page the Markdown of its parts, by name."""


def put(page: str, name: str, part: str) -> str:
    """The text of a page with `part` between the marks of `name`.

    Raises:
        ValueError: if the page has not one place of that name.
    """
    marks = re.compile(rf"(<!-- {re.escape(name)}: written by [^\n]* -->\n).*?(<!-- end of {re.escape(name)} -->)", re.S)
    text, places = marks.subn(lambda found: f"{found[1]}\n{part}\n\n{found[2]}", page)
    if places != 1:
        raise ValueError(f"{places} places for {name!r}, not one: a line <!-- {name}: written by ... --> and a line <!-- end of {name} -->")
    return text


def stale(pages: Pages) -> dict[Path, str]:
    """The pages whose parts are not these, each with the text that it should have.

    Raises:
        ValueError: if a page has not one place for each part.
    """
    texts: dict[Path, str] = {}
    for path, parts in pages.items():
        old = new = path.read_text(encoding="utf-8")
        for name, part in parts.items():
            try:
                new = put(new, name, part)
            except ValueError as error:
                raise ValueError(f"{path} has {error}") from None
        if new != old:
            texts[path] = new
    return texts


def update(pages: Pages, *, check: bool) -> None:
    """Write the parts into the pages and say into which; with `check` only compare, and end the program where a page differs."""
    texts = stale(pages)
    if check and texts:
        sys.exit(f"not what the recorded files say: {', '.join(map(str, texts))}; the same command without --check writes it")
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}", file=sys.stderr)
