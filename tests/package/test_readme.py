"""What the README promises: its pictures, links, presets and commands are there."""

import re
import shlex
from pathlib import Path

import pytest
from test_presets import stated

from sdxl_nb.config import presets
from sdxl_nb.config.flags import read_flags, train_parser
from sdxl_nb.config.train_config import TrainConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)


def headings(text: str) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines}


def leads_somewhere(link: str) -> bool:
    page, _, anchor = link.partition("#")
    file = ROOT / (page or "README.md")
    return file.is_file() and (not anchor or anchor in headings(file.read_text(encoding="utf-8")))


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert len(links) > 4 and not leads_somewhere("#nowhere") and not leads_somewhere("nowhere.md")
    assert [link for link in links if not leads_somewhere(link)] == []


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_small(name: str):
    assert 2_000 < (ROOT / name).stat().st_size < 200_000


def test_presets_are_all_in_the_table():
    assert re.findall(r"^\| `((?:sdxl-|tiny)\w*)` \|", README, re.M) == presets.names()


def test_peaks_are_those_of_the_presets():
    computed = {name: stated(name) for name in presets.names()[1:]}
    assert dict(re.findall(r"^\| `(sdxl-\w+)` \|.*\| ([\d.]+) GB \|$", README, re.M)) == computed
    assert "estimated, not measured" in README
    notebook = (ROOT / "notebooks" / "00_quickstart.ipynb").read_text(encoding="utf-8")
    assert dict(re.findall(r"\| `(sdxl-\w+)` \| ([\d.]+) of \d+ GB \|", notebook)) == computed


def test_commands_parse(tmp_path):
    TrainConfig().save(tmp_path / "saved.json")
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line) for line in lines if "sdxl_nb.train" in line]
    assert len(commands) == 4
    for words in commands:
        argv = words[words.index("sdxl_nb.train") + 1 :]
        if "--config" in argv:  # a LoRA that is not there
            argv[argv.index("--config") + 1] = str(tmp_path / "saved.json")
        config, _ = read_flags(train_parser("train", ""), argv)
        assert config.output_dir == argv[argv.index("--output_dir") + 1]
