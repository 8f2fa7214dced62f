"""A stand-in for the Hugging Face hub on 127.0.0.1: serves local folders as model and data set repositories.

In: {"owner/name": folder} for models and for datasets. Out: a server that the real huggingface_hub, datasets,
diffusers and transformers clients download from, in this process or (the usual way) in a subprocess:

    with Hub(models={"stabilityai/stable-diffusion-xl-base-1.0": folder}) as hub:
        subprocess.run(command, env=hub.environment(tmp_path / "hf_home"))
        assert hub.downloads("stabilityai/stable-diffusion-xl-base-1.0")

Answers the endpoints that those clients call to read: api/{models,datasets}/ID (and /revision, /tree, /refs,
/paths-info) and ID/resolve/REV/FILE with ETag, X-Repo-Commit, HEAD and single ranges. Revisions are "main", the
commit itself and those in `revisions`. Repositories in `gated` are refused without the token. Anything else is the
hub's 404 with its X-Error-Code.

And those that they call to publish, with the right token only: api/repos/create, api/validate-yaml, preupload, the
LFS batch and its PUT, commit. What was committed is in `Hub.commits`.
"""

import base64
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
LFS_BATCH = re.compile(r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch$")
LFS_FILES = (".safetensors", ".png")
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
        self.body = self.read()
        self.answer()

    def do_PUT(self):
        """The content of one LFS object, to the address that the batch gave."""
        self.server.requests.append(f"{self.command} {self.path}")
        body = self.read()
        if self.path != f"/lfs/{hashlib.sha256(body).hexdigest()}":
            return self.refuse(400, "the content has another hash")
        self.server.objects[self.path.rpartition("/")[2]] = body
        return self.send(200, b"", {})

    def read(self):
        """The request's body, whole or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    @property
    def allowed(self):
        """Whether the request carries the token."""
        return self.headers.get("Authorization") == f"Bearer {self.server.token}"

    def answer(self):
        self.server.requests.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        path = unquote(url.path)
        if self.command == "POST" and (publish := self.publisher(path)):
            return publish() if self.allowed else self.refuse(401, "Invalid username or password.")
        if match := RESOLVE.match(path):
            return self.resolve(match["kind"] or "models", match["id"], match["revision"], match["path"])
        if match := API.match(path):
            return self.api(match["kind"], match["id"], match["verb"], match["rest"] or "", parse_qs(url.query))
        return self.fail("RepoNotFound", f"nothing at {path}")

    def find(self, kind, repo_id, revision="main"):
        repository = self.server.repositories.get((kind, repo_id))
        if repository is None:
            return self.fail("RepoNotFound", "Repository not found")
        if repo_id in self.server.gated and not self.allowed:
            return self.refuse(403, "Access to model is restricted", {"X-Error-Code": "GatedRepo"})
        others = {name: other for (owner, name), other in self.server.revisions.items() if owner == repo_id}
        for other in others.values():
            others = others | {other.commit: other}
        if revision in others:
            return others[revision]
        if revision not in ("main", "refs/heads/main", repository.commit):
            return self.fail("RevisionNotFound", f"Invalid rev id: {revision}")
        return repository

    def publisher(self, path):
        """The answer to a request that publishes, or None when it does something else."""
        api, batch = API.match(path), LFS_BATCH.match(path)
        if path == "/api/repos/create":
            return self.create
        if path == "/api/validate-yaml":
            return self.validate
        if batch:
            return self.batch
        if api and api["verb"] in ("preupload", "commit"):
            return getattr(self, api["verb"]) if api["id"] in self.server.created else None
        return None

    def create(self):
        asked = json.loads(self.body)
        repo_id = f"{asked['organization'] or 'me'}/{asked['name']}"
        status = 409 if repo_id in self.server.created else 200
        self.server.created.append(repo_id)
        self.send_json({"url": f"http://{self.headers['Host']}/{repo_id}", "id": repo_id, "name": repo_id}, status)

    def validate(self):
        """The hub's own check of a card's front matter, as far as ours can fail it: base_model is a hub id."""
        card = json.loads(self.body)["content"]
        base = re.search(r'^base_model: "?([^"\n]*)', card.split("---")[1], re.MULTILINE)
        if base and not re.fullmatch(r"[\w.-]+/[\w.-]+", base[1]):
            message = f'"base_model" with value "{base[1]}" is not valid. Use a model id from https://hf.co/models.'
            return self.send_json({"errors": [{"message": message}], "warnings": []}, 400)
        return self.send_json({"errors": [], "warnings": []})

    def preupload(self):
        files = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LFS_FILES) else "regular"}
            | {"shouldIgnore": False, "oid": None}
            for f in json.loads(self.body)["files"]
        ]
        self.send_json({"files": files, "commitOid": "0" * 40})

    def batch(self):
        objects = [
            {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{self.server.url}/lfs/{o['oid']}"}}}
            for o in json.loads(self.body)["objects"]
        ]
        self.send_json({"transfer": "basic", "objects": objects})

    def commit(self):
        repo_id = API.match(urlsplit(self.path).path)["id"]
        lines = [json.loads(line) for line in self.body.splitlines()]
        files = {}
        for line in lines[1:]:
            value = line["value"]
            lfs = line["key"] == "lfsFile"
            files[value["path"]] = self.server.objects[value["oid"]] if lfs else base64.b64decode(value["content"])
        self.server.commits.append({"repo": repo_id, "summary": lines[0]["value"]["summary"], "files": files})
        url = f"http://{self.headers['Host']}/{repo_id}"
        oid = hashlib.sha1(self.body).hexdigest()
        self.send_json({"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", "hookOutput": ""})

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
            names = parse_qs(self.body.decode()).get("paths", [])
            return self.send_json([entry for name in names if (entry := repository.entry(name))])
        if verb == "tree":
            entries = repository.tree(path, query.get("recursive", ["false"])[0].lower() in ("true", "1"))
            return self.fail("EntryNotFound", "no such folder") if entries is None else self.send_json(entries)
        return self.fail("EntryNotFound", f"the stand-in does not answer {verb}")

    def fail(self, code, message, headers=None):
        self.send(404, b'{"error":"' + message.encode() + b'"}', (headers or {}) | {"X-Error-Code": code})

    def refuse(self, status, message, headers=None):
        self.send(status, json.dumps({"error": message}).encode(), headers or {})

    def send_json(self, value, status=200):
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Hub:
    """The server as a context manager: `.url`, `.environment(home)`, `.requests`, `.downloads(repo_id)`.

    `.token` is the one that it takes, `.commits` what was published with it.
    """

    SETTINGS: ClassVar = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}

    def __init__(self, models=None, datasets=None, revisions=None, gated=()):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.requests = self.requests = []
        self.server.commits = self.commits = []
        self.server.token = self.token = "hf_" + "secret" * 6
        self.server.gated, self.server.created, self.server.objects = gated, [], {}
        self.server.revisions = {
            (repo_id, name): Repository("models", repo_id, folder)
            for (repo_id, name), folder in (revisions or {}).items()
        }
        self.server.repositories = {
            (kind, repo_id): Repository(kind, repo_id, folder)
            for kind, folders in (("models", models or {}), ("datasets", datasets or {}))
            for repo_id, folder in folders.items()
        }
        self.server.url = self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

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
