"""A small HTTPS and WebSocket client for the tests: standard library only, so that it depends on nothing under test."""
import base64
import http.client
import json
import os
import socket
import ssl
import struct
import time
import uuid


def tls_context(stack):
    """Trusts exactly the certificate that the gateway generated."""
    context = ssl.create_default_context(cafile=str(stack.dir / "tls" / "gateway.crt"))
    context.check_hostname = True
    return context


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json.get("code")

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Client:
    """One person. `call` sends one request on a connection of its own."""

    def __init__(self, stack):
        self.stack, self.token, self.cookies, self.user = stack, None, {}, None
        self.context = tls_context(stack)

    def call(self, method, path, body=None, headers=None, auth=True, cookies=False, timeout=60):
        connection = http.client.HTTPSConnection("127.0.0.1", self.stack.https_port, context=self.context, timeout=timeout)
        headers = dict(headers or {})
        if auth and self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if cookies and self.cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            out = Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()
        for line in out.headers.get_all("Set-Cookie") or []:
            name, _, value = line.split(";")[0].partition("=")
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return out

    def get(self, path, **kw):
        return self.call("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.call("POST", path, body=body, **kw)

    def delete(self, path, **kw):
        return self.call("DELETE", path, **kw)

    # ---- whole steps ----

    def register(self, email=None, password="correct horse battery"):
        email = email or f"u{uuid.uuid4().hex[:12]}@example.org"
        answer = self.post("/api/auth/register", {"email": email, "password": password})
        assert answer.status == 201, answer
        self.email, self.password = email, password
        self.token, self.user = answer.json["accessToken"], answer.json["user"]
        return self

    def project(self, title="Test", **fields):
        answer = self.post("/api/projects", {"title": title, **fields})
        assert answer.status == 201, answer
        return answer.json

    def upload(self, project, data, name="image.png", query=""):
        return self.post(f"/api/projects/{project['id']}/images?name={name}{query}", data,
                         headers={"Content-Type": "application/octet-stream"})

    def segment(self, image, **request):
        answer = self.post(f"/api/images/{image['id']}/segmentation", request)
        assert answer.status == 202, answer
        return answer.json

    def wait_job(self, job_id, states=("completed", "failed", "cancelled"), seconds=60):
        seconds = max(seconds, 90)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job = self.get(f"/api/segmentation/job/{job_id}").json
            if job["state"] in states:
                return job
            time.sleep(0.05)
        raise AssertionError(f"job {job_id} is still {job['state']} ({job}) after {seconds} s")

    def polygons(self, image, query=""):
        return self.get(f"/api/images/{image['id']}/polygons?limit=20000{query}")


class WebSocket:
    """RFC 6455 client, text frames only."""

    def __init__(self, client, origin=None, cookies=True, token=None, path="/api/ws", timeout=15):
        port = client.stack.https_port
        raw = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.sock = client.context.wrap_socket(raw, server_hostname="127.0.0.1")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13",
                 f"Origin: {origin or f'https://127.0.0.1:{port}'}"]
        if cookies and client.cookies:
            lines.append("Cookie: " + "; ".join(f"{k}={v}" for k, v in client.cookies.items()))
        if token:
            lines.append(f"Authorization: Bearer {token}")
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            piece = self.sock.recv(4096)
            if not piece:
                break
            self.buffer += piece
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.status = int(head.split()[1]) if head else 0

    def _exactly(self, n):
        while len(self.buffer) < n:
            piece = self.sock.recv(65536)
            if not piece:
                raise EOFError
            self.buffer += piece
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def send(self, message):
        data = json.dumps(message).encode() if not isinstance(message, bytes) else message
        mask = os.urandom(4)
        head = b"\x81" + (bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data)))
        self.sock.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def frame(self, timeout=15):
        """(opcode, payload) of the next frame."""
        self.sock.settimeout(timeout)
        a, b = self._exactly(2)
        n = b & 0x7F
        if n == 126:
            n = struct.unpack(">H", self._exactly(2))[0]
        elif n == 127:
            n = struct.unpack(">Q", self._exactly(8))[0]
        return a & 0x0F, self._exactly(n)

    def receive(self, timeout=15):
        """Next JSON message; None when the server closed (self.close_code says why). Answers pings."""
        end = time.monotonic() + timeout
        while True:
            opcode, data = self.frame(max(0.01, end - time.monotonic()))
            if opcode == 1:
                return json.loads(data)
            if opcode == 9:
                mask = os.urandom(4)
                self.sock.sendall(b"\x8a" + bytes([0x80 | len(data)]) + mask +
                                  bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
            if opcode == 8:
                self.close_code = struct.unpack(">H", data[:2])[0] if len(data) >= 2 else None
                return None

    def until(self, want, timeout=30):
        """Messages up to and including the first for which want(message) is true."""
        timeout = max(timeout, 30)
        seen, end = [], time.monotonic() + timeout
        while time.monotonic() < end:
            message = self.receive(max(0.01, end - time.monotonic()))
            if message is None:
                raise AssertionError(f"closed with {self.close_code} after {seen}")
            seen.append(message)
            if want(message):
                return seen
        raise AssertionError(f"not seen in {seen}")

    def close(self):
        self.sock.close()
