"""A stand-in for the Hugging Face hub on 127.0.0.1: serves local folders as model and data set repositories.

In: {"owner/name": folder} for models and for datasets. Out: a server that the real huggingface_hub, datasets,
diffusers and transformers clients download from, in this process or (the usual way) in a subprocess:

    with Hub(models={"stabilityai/stable-diffusion-xl-base-1.0": folder}) as hub:
        subprocess.run(command, env=hub.environment(tmp_path / "hf_home"))
        assert hub.downloads("stabilityai/stable-diffusion-xl-base-1.0")

Answers the endpoints that those clients call to read: api/{models,datasets}/ID (and /revision, /tree, /refs,
/paths-info) and ID/resolve/REV/FILE with ETag, X-Repo-Commit, HEAD and single ranges. "main" and the commit
itself are the only revisions. Anything else is the hub's 404 with its X-Error-Code.
"""

import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)(?:/(?P<verb>[a-z-]+)(?:/(?P<rest>.*))?)?$")
RESOLVE = re.compile(r"/(?:(?P<kind>datasets)/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


class Repository:
    """One folder served as one commit; its hash is that of names and contents."""

    def __init__(self, kind, repo_id, folder):
        self.kind, self.id, self.folder = kind, repo_id, Path(folder).resolve()
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        self.files = {path.relative_to(self.folder).as_posix(): path for path in paths}
        self.hashes = {name: hashlib.sha1(path.read_bytes()).hexdigest() for name, path in self.files.items()}
        self.commit = hashlib.sha1(json.dumps(self.hashes).encode()).hexdigest()

    def info(self):
        siblings = [{"rfilename": name, "size": path.stat().st_size} for name, path in self.files.items()]
        return {
            "_id": self.commit[:24],
            "id": self.id,
            "author": self.id.split("/")[0],
            "sha": self.commit,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": siblings,
        }

    def entry(self, path):
        """A file or a folder as the tree and paths-info endpoints describe it, or None."""
        if path in self.files:
            return {"type": "file", "path": path, "size": self.files[path].stat().st_size, "oid": self.hashes[path]}
        if any(name.startswith(f"{path}/") for name in self.files):
            return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}
        return None

    def tree(self, folder, recursive):
        """Entries below `folder` ("" is the root), or None when there is no such folder."""
        prefix = f"{folder}/" if folder else ""
        below = [name[len(prefix) :] for name in self.files if name.startswith(prefix)]
        if not below:
            return None
        parts = [name.split("/") for name in below]
        deepest = max(map(len, parts)) if recursive else 1
        names = {"/".join(part[:depth]) for part in parts for depth in range(1, min(len(part), deepest) + 1)}
        return [self.entry(prefix + name) for name in sorted(names)]


class Handler(BaseHTTPRequestHandler):
    """One request; the repositories and the log hang on the server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Quiet: `Hub.requests` keeps the log."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        self.answer()

    def answer(self):
        self.server.requests.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        path = unquote(url.path)
        if match := RESOLVE.match(path):
            return self.resolve(match["kind"] or "models", match["id"], match["revision"], match["path"])
        if match := API.match(path):
            return self.api(match["kind"], match["id"], match["verb"], match["rest"] or "", parse_qs(url.query))
        return self.fail("RepoNotFound", f"nothing at {path}")

    def find(self, kind, repo_id, revision="main"):
        repository = self.server.repositories.get((kind, repo_id))
        if repository is None:
            return self.fail("RepoNotFound", "Repository not found")
        if revision not in ("main", "refs/heads/main", repository.commit):
            return self.fail("RevisionNotFound", f"Invalid rev id: {revision}")
        return repository

    def resolve(self, kind, repo_id, revision, path):
        repository = self.find(kind, repo_id, revision)
        if repository is None:
            return
        headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if path not in repository.files:
            return self.fail("EntryNotFound", "Entry not found", headers)
        body, status = repository.files[path].read_bytes(), 200
        headers["ETag"] = f'"{repository.hashes[path]}"'
        if wanted := RANGE.match(self.headers.get("Range") or ""):
            first, last = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
            headers["Content-Range"], status = f"bytes {first}-{last}/{len(body)}", 206
            body = body[first : last + 1]
        self.send(status, body, headers | {"Content-Type": "application/octet-stream"})

    def api(self, kind, repo_id, verb, rest, query):
        revision, _, path = rest.partition("/")
        repository = self.find(kind, repo_id, revision or "main")
        if repository is None:
            return
        if verb in (None, "revision"):
            return self.send_json(repository.info())
        if verb == "refs":
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commit}
            return self.send_json({"branches": [branch], "tags": [], "converts": []})
        if verb == "paths-info":
            return self.send_json([entry for name in self.form.get("paths", []) if (entry := repository.entry(name))])
        if verb == "tree":
            entries = repository.tree(path, query.get("recursive", ["false"])[0].lower() in ("true", "1"))
            return self.fail("EntryNotFound", "no such folder") if entries is None else self.send_json(entries)
        return self.fail("EntryNotFound", f"the stand-in does not answer {verb}")

    def fail(self, code, message, headers=None):
        self.send(404, b'{"error":"' + message.encode() + b'"}', (headers or {}) | {"X-Error-Code": code})

    def send_json(self, value):
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Hub:
    """The server as a context manager: `.url`, `.environment(home)`, `.requests`, `.downloads(repo_id)`."""

    SETTINGS: ClassVar = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}

    def __init__(self, models=None, datasets=None):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.requests = self.requests = []
        self.server.repositories = {
            (kind, repo_id): Repository(kind, repo_id, folder)
            for kind, folders in (("models", models or {}), ("datasets", datasets or {}))
            for repo_id, folder in folders.items()
        }
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def environment(self, home, **more):
        """The environment for a subprocess that finds this hub and nothing cached: `home` is its HF_HOME."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return kept | self.SETTINGS | {"HF_ENDPOINT": self.url, "HF_HOME": str(home)} | more

    def downloads(self, repo_id):
        """Files of one repository that were really sent (GET, not HEAD), in order."""
        marker = f"/{repo_id}/resolve/"
        return [
            unquote(line.split(marker)[1].partition("/")[2])
            for line in self.requests
            if line.startswith("GET") and marker in line
        ]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()
