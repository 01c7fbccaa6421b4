"""A Hugging Face hub on this machine: repositories, commits and downloads."""

import base64
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

TOKEN = "hf_token_that_may_write"
LICENCES = ("apache-2.0", "mit", "cc-by-nc-4.0")


class Hub(http.server.ThreadingHTTPServer):
    """Answers what huggingface_hub asks of the hub to push and to download.

    Attributes:
        repositories: {"user/name": [{path: bytes} of each commit]}.
        requests: (method, path) of all that were made.
        refused: part of a path, at which requests are answered with 403.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.requests, self.objects = {}, [], {}
        self.refused = None
        self.address = f"http://127.0.0.1:{self.server_port}"
        thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        thread.start()

    def files(self, repository, revision="main"):
        """Returns {path: bytes} of a revision, or None where there is none."""
        commits = self.repositories.get(repository, [])
        known = {commit_hash(i): files for i, files in enumerate(commits)}
        if commits:
            known["main"] = commits[-1]
        return known.get(revision)


def commit_hash(number):
    return hashlib.sha1(str(number).encode()).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def handle_one(self):
        self.server.requests.append((self.command, self.path))
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        writes = self.command in ("POST", "PUT") and not path.startswith("/objects/")
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.server.refused and self.server.refused in path:
            return self.answer(403, {"error": "You have no right to do this."})
        for pattern, method in (
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", self.validate),
            (r"/api/models/([^/]+/[^/]+)/preupload/main", self.upload_modes),
            (r"/api/models/([^/]+/[^/]+)/commit/main", self.commit),
            (r"/api/models/([^/]+/[^/]+)/tree/main/?", self.tree),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.batch),
            (r"/objects/(\w+)", self.store),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
        ):
            if found := re.fullmatch(pattern, path):
                return method(*found.groups())
        return self.answer(404, {"error": f"no such path: {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def answer(self, status, value=None, content=None, **headers):
        content = json.dumps(value).encode() if content is None else content
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def create(self):
        asked = json.loads(self.body)
        repository = f"{asked['organization']}/{asked['name']}"
        there = repository in self.server.repositories
        self.server.repositories.setdefault(repository, [])
        address = {"url": f"{self.server.address}/{repository}"}
        self.answer(409 if there else 200, address)

    def validate(self):
        content = json.loads(self.body)["content"]
        licence = re.search(r"^license: (.+)$", content, re.M)
        errors = []
        if licence and licence[1] not in LICENCES:
            errors = [{"message": f'"license" must be one of {", ".join(LICENCES)}'}]
        self.answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def upload_modes(self, repository):
        def mode(name):
            return "lfs" if name.endswith((".keras", ".tflite", ".h5")) else "regular"

        names = [file["path"] for file in json.loads(self.body)["files"]]
        found = [
            {"path": name, "uploadMode": mode(name), "shouldIgnore": False}
            for name in names
        ]
        self.answer(200, {"files": found})

    def batch(self, repository):
        def upload(asked):
            address = f"{self.server.address}/objects/{asked['oid']}"
            return {**asked, "actions": {"upload": {"href": address}}}

        found = [upload(asked) for asked in json.loads(self.body)["objects"]]
        self.answer(200, {"transfer": "basic", "objects": found})

    def store(self, digest):
        assert hashlib.sha256(self.body).hexdigest() == digest
        self.server.objects[digest] = self.body
        self.answer(200, {})

    def tree(self, repository):
        files = self.server.files(repository) or {}
        found = [
            {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
            for name, content in files.items()
        ]
        self.answer(200, found)

    def commit(self, repository):
        files = dict(self.server.files(repository) or {})
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        commits = self.server.repositories[repository]
        commits.append(files)
        oid = commit_hash(len(commits) - 1)
        address = f"{self.server.address}/{repository}/commit/{oid}"
        self.answer(200, {"commitUrl": address, "commitOid": oid})

    def resolve(self, repository, revision, name):
        files = self.server.files(repository, revision)
        if files is None or name not in files:
            code = "RepoNotFound" if files is None else "EntryNotFound"
            return self.answer(404, content=b"", X_Error_Code=code)
        content = files[name]
        digest = hashlib.sha256(content).hexdigest()
        if revision == "main":
            revision = commit_hash(len(self.server.repositories[repository]) - 1)
        large = name.endswith((".keras", ".tflite", ".h5"))
        tag = digest if large else hashlib.sha1(content).hexdigest()
        self.answer(200, content=content, ETag=f'"{tag}"', X_Repo_Commit=revision)
