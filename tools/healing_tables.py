"""Put the gauntlet's measured tables into docs/healing.md: `python tools/healing_tables.py DIR`, the folder that
`selfheal experiment gauntlet --out DIR` wrote."""

from __future__ import annotations

import sys
from pathlib import Path

from selfheal.gauntlet.report import filled, read
from shared.bundle import write_whole
from shared.errors import OperatorError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "healing.md"


def main() -> None:
    """Exit code 2 where there is no gauntlet.json, or no place for it on the page."""
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/healing_tables.py DIR")
    try:
        page = filled(PAGE.read_text("utf-8"), read(Path(sys.argv[1])))
    except OperatorError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(2)
    write_whole(PAGE, page.encode())


if __name__ == "__main__":
    main()
