"""python -m sdxl_nb.preflight.price_refresh: the table of instances with today's prices, from AWS's price list.

In: AWS credentials that may read the price list (`pricing:GetProducts`). Out: instances.json written anew, prices and
date changed and nothing else; each price that changed is printed. What the list does not have keeps what it had.
"""

import datetime
import re
import sys
from pathlib import Path
from typing import Any

from ..system.errors import SdxlNbError
from . import prices

TABLE = Path(__file__).with_name("instances.json")
NUMBER = r"null|\d+(?:\.\d+)?"


def refreshed(text: str, client: Any = None, today: str | None = None) -> tuple[str, list[str]]:
    """The table's text with the prices of its region, and a line for each that changed. Raises SdxlNbError.

    client: of AWS's price list; by default one of these credentials.
    """
    found = {name: prices.ask(name, prices.HOME, client) for name in prices.names()}
    if not any(found.values()):
        raise SdxlNbError("AWS's price list cannot be read: log in with credentials that may pricing:GetProducts.")
    changes = []
    for name, price in found.items():
        row = re.compile(rf'("{re.escape(name)}": *{{[^}}]*"price": *)({NUMBER})')
        before = row.search(text)
        if price is None or before is None or before[2] == f"{price.hourly:g}":
            continue
        text = row.sub(rf"\g<1>{price.hourly:g}", text)
        changes.append(f"{name}: {before[2]} -> {price.hourly:g}")
    date = today or datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return re.sub(r'("date": *")[^"]*', rf"\g<1>{date}", text, count=1), changes


def main() -> int:
    """Write the table anew; 1 where the list cannot be read."""
    try:
        text, changes = refreshed(TABLE.read_text(encoding="utf-8"))
    except SdxlNbError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    TABLE.write_text(text, encoding="utf-8")
    print(*changes or ["No price has changed."], sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
