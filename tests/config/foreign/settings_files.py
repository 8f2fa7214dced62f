"""What the files in files/ are to become: expected.json has the settings and the remarks of each that can be read.

`python tests/config/foreign/settings_files.py` writes it anew; read the difference before it is committed.
"""

import json
import os
import warnings
from pathlib import Path
from typing import Any

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError

HERE = Path(__file__).parent
EXPECTED = HERE / "expected.json"
FILES = sorted(path.name for path in (HERE / "files").iterdir())


def found(name: str) -> dict[str, Any]:
    """What a file of this folder becomes: settings that are no defaults, and remarks; or the sentence of an error."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            config = TrainConfig.load(name).replace(seed=1)
        except ConfigError as error:
            return {"error": str(error)}
    values = config.essentials()
    values.pop("seed")
    return {"values": values, "remarks": [str(each.message) for each in said]}


if __name__ == "__main__":
    os.chdir(HERE / "files")
    EXPECTED.write_text(json.dumps({name: found(name) for name in FILES}, indent=1, ensure_ascii=False) + "\n")
