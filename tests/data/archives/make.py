"""Small archives and tables by the programs that people use: Info-ZIP, GNU tar, webdataset, polars, pyarrow, datasets.

    python tests/data/archives/make.py FOLDER

Needs zip and tar, webdataset, polars, pyarrow, datasets and Pillow; VERSIONS says which wrote the files here.
img2dataset itself wants old Python libraries: its three outputs are written here as its writers do
(img2dataset 1.47, writer.py), with webdataset and pyarrow, which it uses too.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from PIL import Image
from PIL import __version__ as pillow

COLOURS = ("red", "lime", "blue", "yellow")
META = {"status": "success", "error_message": None, "width": 12, "height": 8, "url": "https://example.org/a.png"}


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (12, 8), colour).save(file, "PNG")
    return file.getvalue()


def run(folder, *command):
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def pictures(folder, suffix=".txt"):
    folder.mkdir(parents=True, exist_ok=True)
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(png(colour))
        if suffix:
            (folder / f"{colour}{suffix}").write_text(f"a {colour} card")


def packed(work, out):
    """Folders packed by zip and tar: with a folder around, with metadata inside, with links and secrets."""
    pictures(work / "cards")
    run(work, "zip", "-qr", out / "around.zip", "cards")
    run(work / "cards", "zip", "-qr0", out / "stored.zip", ".")
    run(work / "cards", "zip", "-qr", "-P", "secret", out / "encrypted.zip", ".")
    Image.new("RGB", (64, 64), "red").save(work / "large.bmp")
    run(work, "zip", "-q", "-Z", "bzip2", out / "bzip2.zip", "large.bmp")
    run(work, "tar", "-cf", out / "around.tar", "cards")
    run(work, "tar", "-czf", out / "around.tar.gz", "cards")
    run(work / "cards", "tar", "--format=v7", "-cf", out / "old.tar", ".")
    pictures(work / "named", suffix=None)
    rows = [{"file_name": f"{colour}.png", "text": [f"a {colour} card", f"{colour}"]} for colour in COLOURS]
    (work / "named" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(work / "named", "zip", "-qr", out / "metadata.zip", ".")
    long = work / "long" / ("deep" * 20) / ("folder" * 12)
    pictures(long)
    os.link(long / "red.png", long / "same.png")
    (long / "same.txt").write_text("a red card again")
    os.symlink("red.png", long / "link.png")
    run(work / "long", "tar", "--format=gnu", "-cf", out / "gnu.tar", ".")
    run(work / "long", "tar", "--format=pax", "-cf", out / "pax.tar", ".")
    (long / "ünï 龍.png").write_bytes(png("white"))
    (long / "ünï 龍.txt").write_text("a white card")
    run(work / "long", "zip", "-qry", out / "names.zip", ".")
    run(
        work, "zip", "-qj", out / "nested.zip", out / "around.tar", out / "stored.zip", "cards/red.png", "cards/red.txt"
    )


def sharded(out):
    """webdataset: two tars, captions in .txt and, several of them, in .json, classes, and a mask beside a picture."""
    with webdataset.ShardWriter(str(out / "webdataset" / "%05d.tar"), maxcount=2, verbose=0) as writer:
        for number, colour in enumerate(COLOURS):
            sample = {"__key__": f"{number:06d}", "png": png(colour), "cls": number, "mask.png": png("white")}
            if number % 2:
                sample["json"] = {"caption": [f"a {colour} card", colour]}
            else:
                sample["txt"] = f"a {colour} card"
            writer.write(sample)


def downloaded(out):
    """What img2dataset leaves for each of its output formats; its third picture could not be downloaded."""
    rows = [{"key": f"{n:09d}", "caption": f"a {c} card", **META} for n, c in enumerate(COLOURS)]
    rows[2] |= {"status": "failed_to_download", "error_message": "timed out", "width": None, "height": None}
    good = [(row, png(colour)) for row, colour in zip(rows, COLOURS, strict=True) if row["status"] == "success"]
    for kind in ("files", "webdataset", "parquet"):
        folder = out / "img2dataset" / kind
        folder.mkdir(parents=True)
        (folder / "00000_stats.json").write_text(json.dumps({"count": 4, "successes": 3}))
        if kind != "parquet":
            pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    (out / "img2dataset" / "files" / "00000").mkdir()
    with webdataset.TarWriter(str(out / "img2dataset" / "webdataset" / "00000.tar")) as writer:
        for row, data in good:
            sample = {"png": data, "txt": row["caption"], "json": row}
            writer.write({"__key__": row["key"], **sample})
            stem = out / "img2dataset" / "files" / "00000" / row["key"]
            stem.with_suffix(".png").write_bytes(data)
            stem.with_suffix(".txt").write_text(row["caption"])
            stem.with_suffix(".json").write_text(json.dumps(row))
    stored = {row["key"]: data for row, data in good}
    whole = [row | {"png": stored.get(row["key"])} for row in rows]
    pq.write_table(pa.Table.from_pylist(whole), out / "img2dataset" / "parquet" / "00000.parquet")


def tables(out):
    """polars: bytes, and names of files; datasets: pictures as the hub keeps them."""
    captions, names = [f"a {colour} card" for colour in COLOURS], [f"{colour}.png" for colour in COLOURS]
    place = out / "polars"
    place.mkdir()
    data = [png(colour) for colour in COLOURS]
    polars.DataFrame({"image": data, "text": captions}).write_parquet(place / "bytes.parquet")
    polars.DataFrame({"image": names, "text": captions}).write_parquet(place / "names.parquet")
    polars.DataFrame({"filename": names, "caption": captions}).write_csv(place / "names.csv")
    polars.DataFrame({"image": names, "text": [[c, "x"] for c in captions]}).write_ndjson(place / "names.jsonl")
    rows = [{"image": {"bytes": png(c), "path": None}, "text": t} for c, t in zip(COLOURS, captions, strict=True)]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_list(rows, features=features).to_parquet(out / "datasets.parquet")


def main(out):
    import tempfile

    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    with tempfile.TemporaryDirectory() as work:
        packed(Path(work), out)
    (out / "webdataset").mkdir()
    sharded(out)
    downloaded(out)
    tables(out)
    first = [subprocess.run(c, capture_output=True, text=True).stdout for c in (["zip", "-v"], ["tar", "--version"])]
    said = [first[0].splitlines()[1].split(",")[0], first[1].splitlines()[0]]
    for module in (webdataset, polars, pa, datasets):
        said.append(f"{module.__name__} {getattr(module, '__version__', '')}")
    (out / "VERSIONS").write_text("\n".join([*said, f"Pillow {pillow}"]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
