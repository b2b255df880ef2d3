"""Events to many WebSockets on one gateway, and the same events through two gateways.

Every client is authenticated, over TLS, subscribed to one of many projects and to one that all of them share. Events are
published on Redis as the daemons do, at a stated rate, each with its time of sending; a client notes the time when it
has decrypted it. One process plays all clients (epoll), so what it needs for itself is part of the delay.
  many      events to changing projects, each heard by a few clients
  all       events to the shared project, each heard by every client
Meanwhile some clients never read and get a flood of their own, and some vanish with a reset.
"""
import base64
import concurrent.futures
import json
import os
import pathlib
import random
import resource
import selectors
import socket
import ssl
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "submit"))

import common  # noqa: E402
from bench_submit import SECRET, USER, token  # noqa: E402

SHARED = "00000000-0000-4000-8000-0000000000aa"
FLOODED = "00000000-0000-4000-8000-0000000000bb"


def project_id(i):
    return f"00000000-0000-4000-b000-{i:012d}"


class Publisher:
    """PUBLISH over a plain socket: no client library, no delay but Redis's."""

    def __init__(self, stack):
        self.sock = socket.create_connection(("127.0.0.1", stack.redis_port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.command("AUTH", stack.redis_password)
        self.number = 0

    def command(self, *words):
        data = b"*%d\r\n" % len(words)
        for word in words:
            raw = word if isinstance(word, bytes) else word.encode()
            data += b"$%d\r\n%s\r\n" % (len(raw), raw)
        self.sock.sendall(data)
        return self.sock.recv(4096)

    def event(self, project, padding=0):
        self.number += 1
        self.command("PUBLISH", f"sg:events:{project}", json.dumps(
            {"type": "job", "projectId": project, "imageId": project_id(0), "jobId": project_id(self.number),
             "seq": self.number, "state": "completed", "stage": "", "progress": 1, "attempt": 1, "objectCount": 7,
             "number": self.number, "sent": time.monotonic(), "padding": "x" * padding}))
        return self.number


class Client:
    """Connects blocking, then belongs to a selector."""

    def __init__(self, stack, port, context, bearer, projects, small=False):
        raw = socket.socket()
        if small:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(60)
        raw.connect(("127.0.0.1", port))
        self.sock = context.wrap_socket(raw, server_hostname="127.0.0.1")
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall((f"GET /api/ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                           f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                           f"Origin: https://127.0.0.1:{port}\r\nAuthorization: Bearer {bearer}\r\n\r\n").encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            piece = self.sock.recv(4096)
            if not piece:
                raise RuntimeError("closed in the handshake")
            self.buffer += piece
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(head.decode(errors="replace"))
        self.closed, self.received = False, []
        for project in projects:
            self.send({"type": "subscribe", "projectId": project})
        waiting = set(projects)
        while waiting:
            for message in self.messages(self.sock.recv(65536)):
                if message.get("type") == "snapshot":
                    waiting.discard(message["projectId"])
                elif message.get("type") == "error":
                    raise RuntimeError(message)
        self.sock.setblocking(False)

    def frame(self, opcode, data):
        mask = os.urandom(4)
        head = bytes([0x80 | opcode]) + (bytes([0x80 | len(data)]) if len(data) < 126
                                         else b"\xfe" + struct.pack(">H", len(data)))
        self.sock.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def send(self, message):
        self.frame(1, json.dumps(message).encode())

    def messages(self, data):
        if not data:
            self.closed = True
            return
        self.buffer += data
        while len(self.buffer) >= 2:
            n, at = self.buffer[1] & 0x7F, 2
            if n >= 126:
                size = 2 if n == 126 else 8
                if len(self.buffer) < 2 + size:
                    return
                n, at = int.from_bytes(self.buffer[2:2 + size], "big"), 2 + size
            if len(self.buffer) < at + n:
                return
            opcode, body, self.buffer = self.buffer[0] & 0x0F, self.buffer[at:at + n], self.buffer[at + n:]
            if opcode == 1:
                yield json.loads(body)
            elif opcode == 9:
                self.frame(10, body)
            elif opcode == 8:
                self.closed = True

    def read(self):
        """Notes (number, delay) of each event that is there."""
        while not self.closed:
            try:
                data = self.sock.recv(65536)
            except (ssl.SSLWantReadError, BlockingIOError):
                return
            except OSError:
                self.closed = True
                return
            now = time.monotonic()
            for message in self.messages(data):
                if "sent" in message:
                    self.received.append((message["number"], now - message["sent"]))

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        self.closed = True


class Reader(threading.Thread):
    """Reads all clients until told to stop."""

    def __init__(self, clients):
        super().__init__(daemon=True)
        self.selector = selectors.DefaultSelector()
        for c in clients:
            self.selector.register(c.sock, selectors.EVENT_READ, c)
        self.ending = False
        self.start()

    def run(self):
        while not self.ending:
            for key, _ in self.selector.select(0.05):
                key.data.read()
                if key.data.closed:
                    self.selector.unregister(key.fileobj)

    def stop(self):
        self.ending = True
        self.join()


def prepare(stack, projects):
    stack.sql("INSERT INTO users (id, email, password_hash) VALUES (%s, 'bench@example.org', '-')", USER)
    for p in [SHARED, FLOODED]:
        stack.sql("INSERT INTO projects (id, owner_id, title) VALUES (%s, %s, 'bench')", p, USER)
    stack.sql("INSERT INTO projects (id, owner_id, title) SELECT ('00000000-0000-4000-b000-' || lpad(i::text, 12, '0'))"
              "::uuid, %s, 'bench' FROM generate_series(1, %s) i", USER, projects)


def connect(stack, ports, count, projects, slow=0):
    context = ssl.create_default_context(cafile=str(stack.dir / "tls" / "gateway.crt"))
    bearer = token()

    def one(i):
        if i < count:
            return Client(stack, ports[i % len(ports)], context, bearer, [SHARED, project_id(1 + i % projects)])
        return Client(stack, ports[0], context, bearer, [FLOODED], small=True)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(one, range(count + slow)))
    return made[:count], made[count:]


def publish_at(publisher, rate, seconds, choose):
    """Events at a steady rate. {number: project}"""
    sent, start = {}, time.monotonic()
    for i in range(int(rate * seconds)):
        wait = start + i / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        project = choose()
        sent[publisher.event(project)] = project
    return sent


def collect(clients, sent):
    """Delays of what was sent, and how many deliveries are missing."""
    delays, missing = [], 0
    listeners = {}
    for i, c in enumerate(clients):
        got = dict(c.received)
        for project in c.projects:
            listeners.setdefault(project, []).append(got)
    for number, project in sent.items():
        for got in listeners.get(project, []):
            if number in got:
                delays.append(got[number])
            else:
                missing += 1
    return delays, missing


def phase(clients, publisher, rate, seconds, choose):
    for c in clients:
        c.received.clear()
    sent = publish_at(publisher, rate, seconds, choose)
    expected = sum(1 for p in sent.values() for c in clients if p in c.projects)
    end = time.monotonic() + 15
    while sum(len(c.received) for c in clients) < expected and time.monotonic() < end:
        time.sleep(0.05)
    delays, missing = collect(clients, sent)
    return {"eventsPerSecond": rate, "events": len(sent), "deliveries": len(delays), "missing": missing,
            **{f"p{p}Ms": round(common.percentile(delays, p) * 1000, 3) for p in (50, 99, 100)}}


def one_gateway(stack, count, projects, slow, seconds, rates):
    gateway = stack.gateway.popen.pid
    figures = {"clients": count, "neverReading": slow, "rssBytes": {"idle": common.rss_bytes(gateway)}}
    start = time.monotonic()
    clients, lazy = connect(stack, [stack.https_port], count, projects, slow)
    figures["connectSeconds"] = round(time.monotonic() - start, 2)
    figures["rssBytes"]["connected"] = common.rss_bytes(gateway)
    for i, c in enumerate(clients):
        c.projects = {SHARED, project_id(1 + i % projects)}
    reader, publisher, flooder = Reader(clients), Publisher(stack), Publisher(stack)
    time.sleep(3 if count > 100 else 0.2)  # the handshakes' aftermath
    figures["many"] = phase(clients, publisher, rates[0], seconds,
                            lambda: project_id(random.randint(1, projects)))
    figures["all"] = phase(clients, publisher, rates[1], seconds, lambda: SHARED)
    # Now with a flood for those that never read, while a tenth of the others vanishes without a word.
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            flooder.event(FLOODED, padding=8000)
            time.sleep(0.002)
    gone = clients[::10]
    flooding = threading.Thread(target=flood, daemon=True)
    flooding.start()
    for c in gone:
        reader.selector.unregister(c.sock)
        c.reset()
    left = [c for c in clients if not c.closed]
    figures["manyWithFloodAndResets"] = phase(left, publisher, rates[0], seconds,
                                              lambda: project_id(random.randint(1, projects)))
    figures["manyWithFloodAndResets"].update(resets=len(gone), floodEvents=flooder.number)
    stop.set()
    flooding.join()
    figures["rssBytes"]["afterTraffic"] = common.rss_bytes(gateway)
    reader.stop()
    figures["closedByGateway"] = sum(c.closed for c in clients) - len(gone)
    for c in clients + lazy:
        c.sock.close()
    time.sleep(2)
    figures["rssBytes"]["disconnected"] = common.rss_bytes(gateway)
    return figures


def two_gateways(stack, count, events):
    """Both replicas must deliver the same events in the same order."""
    port, metrics = common.harness.free_port(), common.harness.free_port()
    second = common.harness.Process("gateway2", [common.harness.BUILD / "gateway"], stack.daemon_env(
        HTTPS_PORT=port, HTTP_PORT=0, METRICS_PORT=metrics), stack.logs)
    second.start()
    stack._ready(second, metrics, 60)
    try:
        clients, _ = connect(stack, [stack.https_port, port], count, 1)
        reader, publisher = Reader(clients), Publisher(stack)
        for _ in range(events):
            publisher.event(SHARED)
        end = time.monotonic() + 15
        while any(len(c.received) < events for c in clients) and time.monotonic() < end:
            time.sleep(0.05)
        reader.stop()
        sequences = {tuple(number for number, _ in c.received) for c in clients}
        for c in clients:
            c.sock.close()
        same = sequences == {tuple(range(1, events + 1))}
        return {"clients": count, "events": events, "sameEventsInSameOrder": same}
    finally:
        second.stop()


def main():
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int)
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = args.clients or (40 if args.quick else 2000)
    projects, slow, seconds, rates = (4, 2, 2, (50, 5)) if args.quick else (200, 20, 20, (100, 2))
    machine = common.machine()
    stack = common.BenchStack(env={
        "JWT_SECRET": SECRET, "HTTP_THREADS": str(min(4096, count * 3 // 2 + 200)), "WS_MAX_TOTAL": str(count + 100),
        "WS_MAX_PER_USER": str(count + 100)})
    try:
        stack.start_postgres()
        stack.start_redis()
        stack.start_gateway()
        prepare(stack, projects)
        figures = one_gateway(stack, count, projects, slow, seconds, rates)
        figures["twoGateways"] = two_gateways(stack, min(count, 100), 50 if args.quick else 500)
    finally:
        stack.stop()
    rows = [[name, f["eventsPerSecond"], f["deliveries"], f["missing"], f["p50Ms"], f["p99Ms"], f["p100Ms"]]
            for name, f in figures.items() if name in ("many", "all", "manyWithFloodAndResets")]
    common.print_table(f"Delivery to {count} WebSockets", ["events to", "events/s", "deliveries", "missing", "p50 ms",
                                                           "p99 ms", "max ms"], rows)
    memory = figures["rssBytes"]
    common.print_table("Gateway memory, MiB", ["when", "RSS"], [[k, v / 2**20] for k, v in memory.items()])
    per = (memory["connected"] - memory["idle"]) / (count + slow)
    figures["bytesPerClient"] = round(per)
    print(f"  {per / 1024:.0f} KiB per client; two gateways delivered the same: "
          f"{figures['twoGateways']['sameEventsInSameOrder']}")
    targets = [common.target(f"delivery p99 to {count} clients, {name}", figures[name]["p99Ms"], 250, False, "ms")
               for name in ("many", "all", "manyWithFloodAndResets")]
    targets.append(common.target("events that did not arrive",
                                 sum(figures[n]["missing"] for n in ("many", "all", "manyWithFloodAndResets")), 0, False))
    targets.append(common.target("gateways that agree", int(figures["twoGateways"]["sameEventsInSameOrder"]), 1))
    common.write("websocket", args, machine, figures, targets, {
        "how": " ".join(__doc__.split("\n\n")[1].split()), "projects": projects, "secondsPerPhase": seconds,
        "httpThreads": int(stack.env["HTTP_THREADS"])})


if __name__ == "__main__":
    main()
