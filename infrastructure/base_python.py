"""Makes the image's venv on the Python that has the container's own PyTorch, which is then used and never replaced.

    python3 base_python.py /opt/sdxl-nb constraints.txt

In: a folder for the venv, and the constraints, which are edited. Out: the venv, which sees that PyTorch wherever it
lies (the system's Python, conda's, or a venv such as /opt/venv, which a venv made from it would not see), and a line
that says what was found. Nothing of PyTorch is imported: there is no GPU where images are built. Standard library only.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys

LEAST = (2, 6)  # as pyproject.toml has it; test_base_python.py holds it to that
LEAST_PYTHON = (3, 11)  # the Dockerfile reads pyproject.toml with tomllib
PLACES = ("/opt/venv/bin/python3", "/opt/venv*/bin/python3", "/opt/conda/bin/python3", "/usr/local/bin/python3*")
TIED = ("torch", "torchvision", "torchaudio", "triton", "xformers")  # versions that belong to one PyTorch
ASK = """
import importlib.util, json, sys
from importlib import metadata
spec = importlib.util.find_spec("torch")
places = list(spec.submodule_search_locations or []) if spec else []
found = {name: metadata.version(name) for name in %r if any(metadata.distributions(name=name))}
print(json.dumps({"python": sys.version_info[:2], "place": places[0] if places else None, "versions": found}))
"""


def main(folder, constraints, root="/", options=()):
    """Make the venv; returns the line that says on what."""
    chosen, about = choose(root)
    version = about and about["versions"].get("torch")
    options = [*options, *(["--system-site-packages"] if version else [])]
    subprocess.run([chosen, "-m", "venv", *options, folder], check=True)
    python = os.path.join(folder, "bin", "python")
    if not version:
        return f"The base image has no PyTorch {numbers(LEAST)} or newer: pip brings the one of constraints.txt."
    if ask(python)["place"] != about["place"]:
        add_path(python, os.path.dirname(about["place"]))
    pin(constraints, about["versions"])
    return f"The base image's own PyTorch {version} is used, in {about['place']}."


def choose(root="/"):
    """The Python whose PyTorch is new enough, and what it says; else the first Python, and None."""
    found = [path for path in (shutil.which("python3"),) if path]
    for place in PLACES:
        found += sorted(glob.glob(os.path.join(root, place.lstrip("/"))))
    pythons = [path for path in dict.fromkeys(found) if re.search(r"python3(\.\d+)?$", path)]
    answers = [(path, ask(path)) for path in pythons]
    able = [(path, about) for path, about in answers if about and tuple(about["python"]) >= LEAST_PYTHON]
    if not able:
        sys.exit(f"error: the base image has no Python {numbers(LEAST_PYTHON)} or newer: choose another BASE_IMAGE")
    for path, about in able:
        version = about["versions"].get("torch")
        if version and tuple(map(int, re.findall(r"\d+", version)[:2])) >= LEAST:
            return path, about
    return able[0][0], None


def numbers(version):
    return ".".join(map(str, version))


def ask(python):
    """What a Python has; None where it does not run."""
    done = subprocess.run([python, "-I", "-c", ASK % (TIED,)], capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def add_path(python, place):
    """Let the venv see what lies in another one, after its own."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    with open(os.path.join(own, "base_image.pth"), "w", encoding="utf-8") as file:
        file.write(place + "\n")


def pin(constraints, versions):
    """Put the versions that are there in place of the locked ones; what belongs to another PyTorch is free."""
    with open(constraints, encoding="utf-8") as file:
        lines = [line for line in file if re.split(r"[=<>!~\[ ;]", line)[0].lower() not in TIED]
    with open(constraints, "w", encoding="utf-8") as file:
        file.writelines(lines + [f"{name}=={version}\n" for name, version in versions.items()])


if __name__ == "__main__":
    print(main(*sys.argv[1:]), flush=True)
