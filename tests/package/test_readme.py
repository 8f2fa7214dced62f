"""What README and the pages of docs/ promise: pictures, links, presets and commands are there."""

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
PAGES = [ROOT / "README.md", ROOT / "infrastructure" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
PICTURES = sorted((ROOT / "docs" / "pictures").iterdir())
SHOWN = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")


def headings(text: str) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines}


def leads_somewhere(link: str, page: str = "README.md") -> bool:
    other, _, anchor = link.partition("#")
    file = (ROOT / page).parent / other if other else ROOT / page
    return file.is_file() and (not anchor or anchor in headings(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXTS[page]) if not link.startswith("http")]
    assert [link for link in links if not leads_somewhere(link, page)] == []


def test_a_link_into_nothing_is_found():
    assert leads_somewhere("docs/training.md#presets")
    assert not leads_somewhere("#nowhere") and not leads_somewhere("nowhere.md")


def test_every_page_of_docs_is_led_to_from_the_readme_or_the_gallery():
    gallery = [page for page in TEXTS if page.startswith("docs/gallery/") and not page.endswith("README.md")]
    pages = {page for page in TEXTS if page.startswith("docs/")} - set(gallery)
    assert pages <= set(re.findall(r"\]\((docs/[^)#]+)", README))
    listed = re.findall(r"\]\(([^)]+)\)", TEXTS["docs/gallery/README.md"])
    assert [f"docs/gallery/{page}" for page in listed] == gallery and len(gallery) == 7


def test_the_readme_is_a_screen():
    assert len(README.split()) < 700 and SHOWN.findall(README)[0].endswith(".gif")


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_pictures_are_small_and_shown(picture: Path):
    assert 2_000 < picture.stat().st_size < (1_500_000 if picture.suffix == ".gif" else 200_000)
    shown = {(ROOT / page).parent.joinpath(link).resolve() for page in TEXTS for link in SHOWN.findall(TEXTS[page])}
    assert picture.resolve() in shown


def test_presets_are_all_in_the_table():
    assert re.findall(r"^\| `((?:sdxl-|tiny)\w*)` \|", README, re.M) == presets.names()


def test_peaks_are_those_of_the_presets():
    computed = {name: stated(name) for name in presets.names()[1:]}
    assert dict(re.findall(r"^\| `(sdxl-\w+)` \|[^|]+\| ([\d.]+) GB \|", README, re.M)) == computed
    assert "estimated, not measured" in README
    notebook = (ROOT / "notebooks" / "00_quickstart.ipynb").read_text(encoding="utf-8")
    assert dict(re.findall(r"\| `(sdxl-\w+)` \| ([\d.]+) of \d+ GB \|", notebook)) == computed


def test_commands_parse(tmp_path):
    TrainConfig().save(tmp_path / "saved.json")
    blocks = [block for text in TEXTS.values() for block in re.findall(r"```bash\n(.*?)```", text, re.S)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line) for line in lines if "sdxl_nb.train" in line]
    assert len(commands) > 4
    for words in commands:
        argv = words[words.index("sdxl_nb.train") + 1 :]
        if "--config" in argv:  # a LoRA that is not there
            argv[argv.index("--config") + 1] = str(tmp_path / "saved.json")
        config, _ = read_flags(train_parser("train", ""), argv)
        assert config.output_dir == argv[argv.index("--output_dir") + 1]
