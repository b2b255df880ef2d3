"""Images in a bucket: the storage's unit tests and a whole system against a local S3 server.

The server (npm's s3rver) does not check signatures, so a gate in front of it does, by the published algorithm, together with
the digest of each body; it also fails on demand: answers 500, cuts connections, cuts answers short."""
import base64
import contextlib
import hashlib
import hmac
import http.client
import http.server
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import urllib.parse

import pytest

import images
from api import Client
from harness import BUILD, Stack, free_port, wait_until

HERE = pathlib.Path(__file__).parent / "s3"
KEY, SECRET, BUCKET = "S3RVER", "S3RVER", "spheroseg"


def sign(secret, text):
    return hmac.new(secret, text.encode(), hashlib.sha256).digest()


def signature(method, path, query, headers, signed, digest, stamp, scope):
    pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join([method, urllib.parse.quote(urllib.parse.unquote(path), safe="/-_.~"),
                           "&".join(f"{urllib.parse.quote(k, safe='-_.~')}={urllib.parse.quote(v, safe='-_.~')}" for k, v in pairs),
                           *(f"{name}:{' '.join(headers[name].split())}" for name in signed), "", ";".join(signed), digest])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + SECRET).encode()
    for part in scope.split("/"):
        key = sign(key, part)
    return sign(key, text).hex()


class Gate(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream, address="127.0.0.1"):
        super().__init__((address, 0), Handler)
        self.upstream, self.lock = upstream, threading.Lock()
        self.faults, self.seen, self.damage = [], [], False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def fault(self, method):
        """The first one that is meant for this method."""
        with self.lock:
            for n, (wanted, what) in enumerate(self.faults):
                if wanted in (method, "*"):
                    del self.faults[n]
                    return what
        return None

    def handle_error(self, request, client_address):
        pass  # connections that are cut on purpose


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def refuse(self, status, code):
        body = f"<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def wrong(self, path, query, body):
        headers = {k.lower(): v for k, v in self.headers.items()}
        digest = headers.get("x-amz-content-sha256", "")
        if hashlib.sha256(body).hexdigest() != digest:
            return "XAmzContentSHA256Mismatch"
        if "content-md5" in headers and base64.b64encode(hashlib.md5(body).digest()).decode() != headers["content-md5"]:
            return "BadDigest"
        fields = dict(f.strip().split("=", 1) for f in headers.get("authorization", " ").split(" ", 1)[1].split(","))
        key, scope = fields["Credential"].split("/", 1)
        signed = fields["SignedHeaders"].split(";")
        if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(signed):
            return "AccessDenied"
        want = signature(self.command, path, query, headers, signed, digest, headers["x-amz-date"], scope)
        return None if key == KEY and want == fields["Signature"] else "SignatureDoesNotMatch"

    def do_any(self):
        body = b""
        length = int(self.headers.get("Content-Length", "0"))
        fault = self.server.fault(self.command)
        if fault == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        while len(body) < length:
            piece = self.rfile.read(min(1 << 20, length - len(body)))
            if not piece:
                break
            body += piece
        path, _, query = self.path.partition("?")
        self.server.seen.append((self.command, path, query, self.headers.get("Range"), len(body)))
        if fault == "damage" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        code = self.wrong(path, query, body)
        if code:
            return self.refuse(400 if code in ("XAmzContentSHA256Mismatch", "BadDigest") else 403, code)
        if isinstance(fault, int):
            return self.refuse(fault, "SlowDown" if fault == 503 else "InternalError")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)) as up:
            up.request(self.command, self.path, body, dict(self.headers.items()))
            answer = up.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "keep-alive"):
                    self.send_header(name, value)
            self.send_header("Content-Length", answer.getheader("Content-Length") if self.command == "HEAD" and answer.getheader("Content-Length")
                             else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                if fault == "short":
                    self.wfile.write(data[:len(data) * 2 // 3])
                    self.close_connection = True
                    return
                self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any


@pytest.fixture(scope="module", name="gate")
def fixture_gate():
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed, so there is no S3 server to test with")
    if not (HERE / "node_modules/s3rver").exists():
        done = subprocess.run(["npm", "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE, check=False)
        if done.returncode != 0:
            pytest.skip("npm cannot install the S3 server")
    folder, port = tempfile.mkdtemp(prefix="spheroseg-s3-"), free_port()
    # Its list of objects needs a cipher that OpenSSL 3 keeps in its legacy provider.
    server = subprocess.Popen(["node", "--openssl-legacy-provider", "-r", HERE / "settled.js", HERE / "node_modules/.bin/s3rver", "-d", folder, "-a", "127.0.0.1",
                               "-p", str(port), "--no-vhost-buckets", "--silent", "--configure-bucket", BUCKET],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up():
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as c:
            c.request("GET", "/")
            return c.getresponse().status
    try:
        wait_until(up, 30, "the S3 server's start")
        yield Gate(port)
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def fixture_clean(request):
    if "gate" in request.fixturenames:
        gate = request.getfixturevalue("gate")
        gate.faults.clear()
        gate.seen.clear()
    yield


def settings(gate):
    return {"S3_ENDPOINT": f"http://127.0.0.1:{gate.server_port}", "S3_ACCESS_KEY": KEY, "S3_SECRET_KEY": SECRET}


def unit(gate):
    program = BUILD / "unit/common/test_storage_backends"
    if not program.exists():
        pytest.skip(f"{program} is not built (make unit-programs)")
    env = dict(os.environ, **settings(gate), S3_BUCKET=BUCKET)
    done = subprocess.run([program], env=env, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def test_every_back_end_does_the_same(gate):
    status, said = unit(gate)
    assert status == 0 and "SKIPPED" not in said, said
    sizes = [n for method, _, query, _, n in gate.seen if method == "PUT" and "partNumber" in query]
    assert sizes == [5 << 20, 5 << 20, (200 * 65536 + 12345) - (10 << 20)]


def test_what_passes_is_tried_again(gate):
    gate.faults += [("POST", 500), ("PUT", 503), ("PUT", "cut"), ("PUT", 500), ("POST", "cut"), ("GET", "short"), ("GET", 500), ("DELETE", 500)]
    status, said = unit(gate)
    assert status == 0, said
    assert gate.faults == []
    # An answer that was cut is continued, not begun again.
    assert any(r for method, _, _, r, _ in gate.seen if method == "GET" and r), "no range was asked for"


@contextlib.contextmanager
def system(gate):
    stack = Stack(workers=1, env=dict(settings(gate), STORAGE_URL=f"s3://{BUCKET}/system"))
    try:
        yield stack.start()
    finally:
        stack.stop()


def test_a_whole_system(gate):
    with system(gate) as stack:
        person = Client(stack)
        person.register()
        project = person.project()
        picture = images.png(images.nuclei(width=256, height=256, count=12, seed=5)[0])
        uploaded = person.upload(project, picture)
        assert uploaded.status == 201, uploaded
        image = uploaded.json["id"]
        job = person.segment(uploaded.json, model="nuclei")["jobId"]
        assert person.wait_job(job)["state"] == "completed"
        assert person.get(f"/api/images/{image}/original").body == picture
        wait_until(lambda: person.get(f"/api/images/{image}/thumbnail").status == 200, 30, "a thumbnail")
        left = [p for p in (stack.dir / "storage").rglob("*") if p.is_file()]
        assert left == [], "files stay on this computer"
        # A storage that is away is told, and nothing half remains.
        before = stack.sql("SELECT count(*) FROM images")
        gate.faults += [("PUT", 500)] * 5
        answer = person.upload(project, picture)
        assert answer.status >= 500 and answer.code == "storage_error", answer
        assert stack.sql("SELECT count(*) FROM images") == before
        gate.faults.clear()
        # Bytes that change on the way are refused by their digest.
        gate.faults += [("PUT", "damage")]
        answer = person.upload(project, picture)
        assert answer.status >= 500, answer
        assert person.delete(f"/api/images/{image}").status == 204
        wait_until(lambda: any("delete" in q for _, _, q, _, _ in gate.seen), 10, "the deletion of its objects")
