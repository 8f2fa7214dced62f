"""Films the way from pictures to a LoRA for the README, on the real page in a real JupyterLab (minutes, two cores).

    python docs/make_path.py

Out: docs/pictures/path.gif: a person drops twelve blueprints, says what is in each, starts the tiny base, watches it,
stars a stage. Uses the browser tests' JupyterLab.
"""

import io
import re
import secrets
import tempfile
from pathlib import Path

from make_screenshots import PICTURES  # first: it finds the tests' folder
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, expect, sync_playwright

from sdxl_nb import TrainConfig, open_dataset

from lab import FLAGS, PATIENCE, Lab, _free_port, _server, chromium  # isort: skip

SIZE, BAR, LIMIT = (1180, 720), 44, 1_500_000  # bytes
INK, PAPER = "#ffffff", "#1f3a5f"
TOP = "element => element.scrollIntoView({block: 'start'})"
STEPS = 250
SETTINGS = 'h2.sdxl-nb-step:has-text("Settings")'
RUN = 'h2.sdxl-nb-step:has-text("Run")'


def main() -> None:
    with tempfile.TemporaryDirectory() as spare:
        root = Path(spare) / "notebooks"
        root.mkdir()
        port, token = _free_port(), secrets.token_hex(16)
        (Path(spare) / "home").mkdir()
        with _server(Path(spare) / "home", root, port, token), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1] - BAR})
            page.set_default_timeout(PATIENCE)
            expect.set_options(timeout=PATIENCE)
            lab = Lab(root, f"http://127.0.0.1:{port}", token, page)
            lab.start()
            for command in ("application:toggle-mode", "application:toggle-left-area"):  # the notebook alone
                page.evaluate("command => window.jupyterapp.commands.execute(command)", command)
            write(film(lab, Path(spare)))
            browser.close()


def film(lab: Lab, spare: Path) -> list[tuple[Image.Image, int]]:
    """Frames, and milliseconds of each."""
    page, frames = lab.open('from sdxl_nb import Project\nProject("my-style")'), []

    def frame(words: str, seconds: float, place: str | None = None) -> None:
        if place:
            page.locator(place).first.evaluate(TOP)
        page.wait_for_timeout(700)  # pictures are decoded
        frames.append((titled(page.screenshot(), words), round(seconds * 1000)))

    expect(page.get_by_text("There is no picture yet in")).to_be_visible()
    frame("One cell, one page. Drop pictures, folders or a zip.", 2.5)
    blueprints = chosen(spare)
    page.locator("input[type=file]").first.set_input_files([str(path) for path, _ in blueprints])
    expect(page.get_by_text(f"0 of {len(blueprints)} captioned")).to_be_visible()
    frame("Say in a few words what is in each.", 2)
    caption(page, [text for _, text in blueprints])
    frame("Ctrl+Enter goes to the next; what is typed is kept.", 2)
    steps = page.get_by_label("Steps", exact=True)
    steps.fill(str(STEPS))
    steps.press("Tab")
    frame(
        "Settings are proposed for your GPU and your pictures, with the reasons.",
        3,
        'h2.sdxl-nb-step:has-text("Settings")',
    )
    page.locator(".sdxl-nb button", has_text=re.compile(r"^\s*Start\s*$")).click()
    for share in (0.1, 0.5):
        status = page.locator(".sdxl-nb-status").first
        expect(status).to_contain_text(re.compile(r"step \d+"))
        page.wait_for_function(
            "step => +(document.querySelector('.sdxl-nb-status').innerText.match(/step (\\d+)/) || [0, 0])[1] > step",
            arg=round(STEPS * share),
            timeout=0,
        )
        frame("Watch, stop, go on: the run does not need the notebook.", 1.8, RUN)
    expect(status).to_contain_text("Completed", timeout=0)
    frame("Its pictures, its losses, each stage.", 2.5, RUN)
    star = page.locator(".sdxl-nb button", has_text=re.compile(r"^\s*Star it\s*$")).first
    star.click()
    expect(page.get_by_text("is starred")).to_be_visible()
    star.scroll_into_view_if_needed()
    frame("Star the one to keep, and download the LoRA.", 4)
    return frames


def chosen(folder: Path) -> list[tuple[Path, str]]:
    """Twelve of the embedded blueprints, large enough to look at, with what is in each."""
    made, pictures = [], open_dataset(TrainConfig.preset("tiny"))
    for number, text in enumerate(pictures.captions):
        if "blueprint" in text and len(made) < 12:
            picture = Image.open(io.BytesIO(pictures.picture_bytes(number))).convert("RGB")
            made.append((folder / f"{number:02d}.png", text))  # in the order in which the page shows them
            picture.resize((384, 384), Image.Resampling.LANCZOS).save(made[-1][0])
    return made


def caption(page: Page, texts: list[str]) -> None:
    """Type each, as a person does."""
    page.get_by_label(re.compile("caption of"), exact=False).first.focus()
    for number, text in enumerate(texts):
        expect(page.locator("textarea:focus")).to_have_value("")
        page.keyboard.type(text)
        page.keyboard.press("Control+Enter" if number + 1 < len(texts) else "Tab")
        expect(page.get_by_text(f"{number + 1} of {len(texts)} captioned")).to_be_visible()


def titled(png: bytes, words: str) -> Image.Image:
    """The page, with what happens below it."""
    frame = Image.new("RGB", SIZE, PAPER)
    frame.paste(Image.open(io.BytesIO(png)).convert("RGB"), (0, 0))
    font = ImageFont.load_default(22)
    ImageDraw.Draw(frame).text((SIZE[0] / 2, SIZE[1] - BAR / 2), words, INK, font, anchor="mm")
    return frame


def write(frames: list[tuple[Image.Image, int]]) -> None:
    """One palette for all frames, so that only what changes is stored."""
    sheet = Image.new("RGB", (SIZE[0], SIZE[1] * len(frames)))
    for number, (frame, _) in enumerate(frames):
        sheet.paste(frame, (0, number * SIZE[1]))
    palette = sheet.quantize(128)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame, _ in frames]
    path = PICTURES / "path.gif"
    drawn[0].save(
        path, save_all=True, append_images=drawn[1:], duration=[ms for _, ms in frames], loop=0, optimize=True
    )
    size = path.stat().st_size
    if size > LIMIT:
        raise SystemExit(f"{path} has {size} bytes, more than {LIMIT}.")
    print(f"{path}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
