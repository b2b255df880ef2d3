"""setup-ssl.sh against a real ACME server (pebble, Let's Encrypt's own for tests): a certificate is asked for, installed, renewed
and taken over by nginx while people are connected."""
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import containers  # noqa: E402
from api import WebSocket  # noqa: E402
from harness import free_port, wait_until  # noqa: E402

needed = [name for name in ("pebble", "pebble-challtestsrv", "certbot") if not shutil.which(name)]
pytestmark = [pytest.mark.skipif(not containers.engine(), reason="no Docker engine runs here"),
              pytest.mark.skipif(bool(needed), reason=f"not installed: {', '.join(needed)}")]
DOMAIN = "spheroseg.test"


class Authority:
    """pebble, and a name server that says that every name leads here."""

    def __init__(self, folder, http_port):
        folder.mkdir()
        self.port, manage, dns, dns_manage = free_port(), free_port(), free_port(), free_port()
        containers.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "key.pem",
                       "-out", folder / "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        (folder / "config.json").write_text(
            f'{{"pebble": {{"listenAddress": "127.0.0.1:{self.port}", "managementListenAddress": "127.0.0.1:{manage}", "certificate": '
            f'"{folder}/cert.pem", "privateKey": "{folder}/key.pem", "httpPort": {http_port}, "tlsPort": 1}}}}')
        self.log = open(folder / "log", "wb")
        self.processes = [
            subprocess.Popen(["pebble-challtestsrv", "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1", "-dns01", f"127.0.0.1:{dns}", "-management",
                              f"127.0.0.1:{dns_manage}", "-http01", "", "-https01", "", "-tlsalpn01", ""], stdout=self.log, stderr=self.log),
            subprocess.Popen(["pebble", "-config", folder / "config.json", "-dnsserver", f"127.0.0.1:{dns}"], stdout=self.log, stderr=self.log,
                             env=dict(os.environ, PEBBLE_VA_NOSLEEP="1"))]
        self.directory, self.trust = f"https://localhost:{self.port}/dir", folder / "cert.pem"
        wait_until(lambda: subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}"], input=b"", capture_output=True,
                                          check=False).returncode == 0, 20, "pebble")

    def close(self):
        for p in self.processes:
            p.terminate()
            p.wait(10)
        self.log.close()


@pytest.fixture(scope="module", name="stack")
def fixture_stack():
    s = containers.Containers("spheroseg-ops-ssl")
    timers = s.dir / "timers"
    timers.mkdir()
    s.secrets_from_host(SSL_DIR=s.dir / "ssl", TIMER_DIR=timers)
    s.authority = Authority(s.dir / "authority", s.http_port)
    s.env["REQUESTS_CA_BUNDLE"] = str(s.authority.trust)
    try:
        yield s.up()
    finally:
        s.authority.close()
        s.down()


def served(stack):
    """Issuer and serial number of what nginx shows."""
    pem = containers.run("openssl", "s_client", "-connect", f"127.0.0.1:{stack.https_port}", "-servername", DOMAIN, input="").stdout
    return containers.run("openssl", "x509", "-noout", "-issuer", "-serial", input=pem).stdout


def untrusting(person):
    person.context.check_hostname = False
    person.context.verify_mode = 0
    return person


class Visitor(threading.Thread):
    """Asks all the time, on a new connection each time."""

    def __init__(self, person):
        super().__init__(daemon=True)
        self.person, self.end, self.sent, self.failed, self.gap = person, threading.Event(), 0, [], 0.0
        self.start()

    def run(self):
        last = time.monotonic()
        while not self.end.wait(0.02):
            self.sent += 1
            try:
                answer = self.person.get("/api/projects?limit=1", timeout=10)
                if answer.status != 200:
                    self.failed.append(repr(answer))
            except OSError as e:
                self.failed.append(repr(e))
            self.gap, last = max(self.gap, time.monotonic() - last), time.monotonic()


def test_nothing_is_installed_when_the_authority_refuses(stack):
    before = served(stack)
    done = stack.script("setup-ssl.sh", DOMAIN, "a@example.org", "https://localhost:1/dir", check=False)
    assert done.returncode == 1 and "no certificate" in done.stderr
    assert served(stack) == before and not (stack.dir / "secrets/tls").exists()


def test_issue_and_renew_while_people_are_connected(stack):
    person = untrusting(stack.client())
    person.register()
    socket = WebSocket(person)
    assert socket.status == 101
    visitor, first = Visitor(person), served(stack)
    try:
        start = time.monotonic()
        done = stack.script("setup-ssl.sh", DOMAIN, "a@example.org", stack.authority.directory)
        print(done.stderr, f"{time.monotonic() - start:.1f} s")
        wait_until(lambda: "Pebble" in served(stack), 20, "the new certificate")
        second = served(stack)
        assert second != first
        done = stack.script("setup-ssl.sh", "--renew")
        assert "nothing to renew" in done.stderr and served(stack) == second
        stack.script("setup-ssl.sh", "--renew", "--force")
        wait_until(lambda: served(stack) != second, 20, "the renewed certificate")
        time.sleep(65)  # longer than a minute after the last reload: the old process of nginx is still there for whom it serves
        project = person.project()
        assert project["id"]
        socket.send({"type": "ping"})
        socket.frame(30)  # the old connection speaks
    finally:
        visitor.end.set()
        visitor.join()
    print(f"{visitor.sent} requests, {len(visitor.failed)} failed, longest gap {visitor.gap:.2f} s; the WebSocket outlived two reloads")
    assert not visitor.failed, visitor.failed[:5]


def test_files_are_for_their_owner_alone_and_a_timer_is_there(stack):
    for name in ("fullchain.pem", "privkey.pem"):
        assert (stack.dir / "secrets/tls" / name).stat().st_mode & 0o777 == 0o600
    assert "--renew" in (stack.dir / "timers/spheroseg-ssl.service").read_text()
    assert "OnCalendar" in (stack.dir / "timers/spheroseg-ssl.timer").read_text()


def test_a_key_that_does_not_fit_is_refused(stack):
    key, before = stack.dir / f"ssl/live/{DOMAIN}/privkey.pem", served(stack)
    was = key.resolve().read_bytes()
    try:
        containers.run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key.resolve())
        done = stack.script("setup-ssl.sh", "--install", check=False)
        assert done.returncode == 1 and "do not belong together" in done.stderr and served(stack) == before
    finally:
        key.resolve().write_bytes(was)


def test_the_answer_is_taken_away(stack):
    listing = containers.run("docker", "exec", stack.ids("nginx")[0], "find", "/run/nginx/acme", "-type", "f").stdout
    assert listing.strip() == ""
