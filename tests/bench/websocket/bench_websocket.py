"""Events to many WebSockets on one gateway, and the same events through two gateways.

Every client is authenticated, over TLS, subscribed to one of many projects and to one that all of them share. Events are
published on Redis as the daemons do, at a stated rate, each with its time of sending; a client notes the time when it
has decrypted it. One process plays all clients (ws_clients.c); it shares the processors with the gateway, so what it
needs for itself is part of the delay, and is reported.
  many      events to changing projects, each heard by a few clients
  all       events to the shared project, each heard by every client
Meanwhile some clients never read and get a flood of their own, and some vanish with a reset.
"""
import json
import os
import pathlib
import random
import resource
import socket
import subprocess
import sys
import tempfile
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


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Publisher:
    """PUBLISH over a plain socket: no client library, no delay but Redis's."""

    numbers = 0  # of all publishers: a gateway leaves out what it has had

    def __init__(self, stack):
        self.sock = socket.create_connection(("127.0.0.1", stack.redis_port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.command("AUTH", stack.redis_password)
        self.sent = 0

    def command(self, *words):
        data = b"*%d\r\n" % len(words)
        for word in words:
            raw = word if isinstance(word, bytes) else word.encode()
            data += b"$%d\r\n%s\r\n" % (len(raw), raw)
        self.sock.sendall(data)
        return self.sock.recv(4096)

    def event(self, project, padding=0):
        Publisher.numbers += 1
        self.sent += 1
        number = Publisher.numbers
        self.command("PUBLISH", f"sg:events:{project}", json.dumps(
            {"type": "job", "projectId": project, "imageId": project_id(0), "jobId": project_id(number),
             "seq": number, "state": "completed", "stage": "", "progress": 1, "attempt": 1, "objectCount": 7,
             "number": number, "sent": time.monotonic(), "padding": "x" * padding}))
        return number


class Clients:
    """All clients, in one process of their own."""

    def __init__(self, stack, ports, count, projects, slow=0):
        self.folder = stack.dir
        self.process = subprocess.Popen(
            [common.harness.BUILD / "bench" / "ws_clients", stack.dir / "tls" / "gateway.crt", ",".join(map(str, ports)),
             token(), str(count), str(projects), str(slow)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.projects = [{SHARED, project_id(1 + i % projects)} for i in range(count)]
        self.gone = set()
        if self.answer() != ["connected"]:
            raise RuntimeError("the clients did not connect")

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the clients ended")
        return line.split()

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def reset(self, every):
        self.gone.update(range(0, len(self.projects), every))
        return int(self.ask("reset", every)[1])

    def begin(self):
        self.cpu = float(self.ask("begin")[1])

    def end(self):
        """(deliveries as (client, number, seconds) in the order of arrival, CPU seconds, clients open)"""
        path = pathlib.Path(tempfile.mkdtemp(dir=self.folder)) / "deliveries"
        _, cpu, still = self.ask("end", path)
        got = [line.split() for line in path.read_text().splitlines()]
        return [(int(c), int(n), int(us) / 1e6) for c, n, us in got], float(cpu) - self.cpu, int(still)

    def wait(self, expected, seconds):
        end = time.monotonic() + seconds
        while int(self.ask("count")[1]) < expected and time.monotonic() < end:
            time.sleep(0.05)

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)


def prepare(stack, projects):
    stack.sql("INSERT INTO users (id, email, password_hash) VALUES (%s, 'bench@example.org', '-')", USER)
    for p in [SHARED, FLOODED]:
        stack.sql("INSERT INTO projects (id, owner_id, title) VALUES (%s, %s, 'bench')", p, USER)
    stack.sql("INSERT INTO projects (id, owner_id, title) SELECT ('00000000-0000-4000-b000-' || lpad(i::text, 12, '0'))"
              "::uuid, %s, 'bench' FROM generate_series(1, %s) i", USER, projects)


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


def phase(gateway, clients, publisher, rate, seconds, choose):
    clients.begin()
    cpu, start = cpu_seconds(gateway), time.monotonic()
    sent = publish_at(publisher, rate, seconds, choose)
    listeners = {}
    for i, projects in enumerate(clients.projects):
        for project in projects if i not in clients.gone else ():
            listeners[project] = listeners.get(project, 0) + 1
    expected = sum(listeners.get(p, 0) for p in sent.values())
    clients.wait(expected, 15)
    wall, cpu = time.monotonic() - start, cpu_seconds(gateway) - cpu
    got, own, still = clients.end()
    unique = {(c, n) for c, n, _ in got if n in sent and sent[n] in clients.projects[c]}
    delays = [d for _, n, d in got if n in sent]
    return {"eventsPerSecond": rate, "events": len(sent), "deliveries": len(delays), "missing": expected - len(unique),
            **{f"p{p}Ms": round(common.percentile(delays, p) * 1000, 3) for p in (50, 99, 100)},
            "gatewayCpuShare": round(cpu / wall, 3), "clientCpuShare": round(own / wall, 3),
            "gatewayUsPerDelivery": round(cpu / len(delays) * 1e6, 1), "clientUsPerDelivery": round(own / len(delays) * 1e6, 1),
            "clientsOpen": still}


def one_gateway(stack, count, projects, slow, seconds, rates):
    gateway = stack.gateway.popen.pid
    figures = {"clients": count, "neverReading": slow, "rssBytes": {"idle": common.rss_bytes(gateway)}}
    start = time.monotonic()
    clients = Clients(stack, [stack.https_port], count, projects, slow)
    figures["connectSeconds"] = round(time.monotonic() - start, 2)
    figures["rssBytes"]["connected"] = common.rss_bytes(gateway)
    figures["gatewayThreads"] = len(list(pathlib.Path(f"/proc/{gateway}/task").iterdir()))
    publisher, flooder = Publisher(stack), Publisher(stack)
    time.sleep(3 if count > 100 else 0.2)  # the handshakes' aftermath
    figures["many"] = phase(gateway, clients, publisher, rates[0], seconds,
                            lambda: project_id(random.randint(1, projects)))
    figures["all"] = phase(gateway, clients, publisher, rates[1], seconds, lambda: SHARED)
    figures["closedByGateway"] = count - figures["all"]["clientsOpen"]
    # Now with a flood for those that never read, while a tenth of the others vanishes without a word.
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            flooder.event(FLOODED, padding=8000)
            time.sleep(0.002)
    flooding = threading.Thread(target=flood, daemon=True)
    flooding.start()
    gone = clients.reset(10)
    figures["manyWithFloodAndResets"] = phase(gateway, clients, publisher, rates[0], seconds,
                                              lambda: project_id(random.randint(1, projects)))
    figures["closedByGateway"] += count - gone - figures["manyWithFloodAndResets"]["clientsOpen"]
    figures["manyWithFloodAndResets"].update(resets=gone, floodEvents=flooder.sent)
    stop.set()
    flooding.join()
    figures["slowClosed"] = stack.metric(stack.metrics_port, "spheroseg_websocket_slow_total")
    figures["rssBytes"]["afterTraffic"] = common.rss_bytes(gateway)
    clients.stop()
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
        clients, publisher = Clients(stack, [stack.https_port, port], count, 1), Publisher(stack)
        clients.begin()
        numbers = [publisher.event(SHARED) for _ in range(events)]
        clients.wait(count * events, 15)
        sequences = {}
        for c, n, _ in clients.end()[0]:
            sequences.setdefault(c, []).append(n)
        clients.stop()
        same = len(sequences) == count and all(s == numbers for s in sequences.values())
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
        "JWT_SECRET": SECRET, "WS_MAX_TOTAL": str(count + 100), "WS_MAX_PER_USER": str(count + 100)})
    try:
        stack.start_postgres()
        stack.start_redis()
        stack.start_gateway()
        prepare(stack, projects)
        figures = one_gateway(stack, count, projects, slow, seconds, rates)
        figures["twoGateways"] = two_gateways(stack, min(count, 100), 50 if args.quick else 500)
    finally:
        stack.stop()
    rows = [[name, f["eventsPerSecond"], f["deliveries"], f["missing"], f["p50Ms"], f["p99Ms"], f["p100Ms"],
             f["gatewayUsPerDelivery"], f["clientUsPerDelivery"]]
            for name, f in figures.items() if name in ("many", "all", "manyWithFloodAndResets")]
    common.print_table(f"Delivery to {count} WebSockets", ["events to", "events/s", "deliveries", "missing", "p50 ms",
                                                           "p99 ms", "max ms", "gateway CPU us", "client CPU us"], rows)
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
    if not args.quick:  # what is made once would count too much
        targets.append(common.target("memory per client", per / 1024, 32, False, "KiB"))
    targets.append(common.target("clients that read and were closed", figures["closedByGateway"], 0, False))
    targets.append(common.target("gateways that agree", int(figures["twoGateways"]["sameEventsInSameOrder"]), 1))
    common.write("websocket", args, machine, figures, targets, {
        "how": " ".join(__doc__.split("\n\n")[1].split()), "projects": projects, "secondsPerPhase": seconds})


if __name__ == "__main__":
    main()
