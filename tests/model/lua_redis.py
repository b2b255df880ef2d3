"""A small Redis client and a private server for the tests of proto/lua."""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

import pytest

LUA = pathlib.Path(__file__).resolve().parents[2] / "proto/lua"


class Redis:
    """As much of a client as the test needs: RESP2, one command at a time, scripts by their hash."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", buffering=1 << 16)
        self.sha = {}

    def close(self):
        self.file.close()
        self.socket.close()

    def __call__(self, *args):
        parts = [b"*%d\r\n" % len(args)]
        for a in args:
            raw = a if isinstance(a, bytes) else str(a).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
        self.socket.sendall(b"".join(parts))
        return self._reply()

    def _reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        raise RuntimeError(f"unexpected reply {line!r}")

    def load(self, name, text):
        self.sha[name] = self("SCRIPT", "LOAD", text)

    def run(self, name, keys, *args):
        return self("EVALSHA", self.sha[name], len(keys), *keys, *args)


# Everything in Redis, in one command. Reading is all it does.
DUMP = """
local all = {}
for _, key in ipairs(redis.call('KEYS', 'sg:*')) do
    local kind = redis.call('TYPE', key).ok
    local value
    if kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'hash' then value = redis.call('HGETALL', key)
    elseif kind == 'set' then value = redis.call('SMEMBERS', key)
    elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    else value = {redis.call('GET', key)} end
    all[#all + 1] = {key, value}
end
local now = redis.call('TIME')
return {all, now[1] * 1000 + math.floor(now[2] / 1000)}
"""


@contextlib.contextmanager
def private_redis():
    """A client of a server of its own, with all scripts loaded. SPHEROSEG_REDIS_SERVER names another program."""
    program = os.environ.get("SPHEROSEG_REDIS_SERVER") or "redis-server"
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    folder = tempfile.mkdtemp(prefix="spheroseg-lua-")
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen([program, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", "",
                               "--appendonly", "no"], stdout=subprocess.DEVNULL)
    client = None
    try:
        for _ in range(200):
            try:
                client = Redis(port)
                client("PING")
                break
            except (OSError, RuntimeError):
                time.sleep(0.05)
        assert client, "Redis did not start"
        for script in LUA.glob("*.lua"):
            client.load(script.stem, script.read_text())
        client.load("dump", DUMP)
        yield client
    finally:
        if client:
            client.close()
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
