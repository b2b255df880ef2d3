"""Behind a reverse proxy: who is calling is what trusted proxies say, and nobody else is believed."""
import json
import subprocess

from api import Client
from harness import BUILD, wait_until

WRONG = {"email": "nobody@example.org", "password": "wrong horse battery"}


def sign_in(client, forwarded=None, n=1):
    """Statuses of n failed sign-ins, each of another account, so that only the address counts."""
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    sign_in.number += n
    return [client.post("/api/auth/login", {**WRONG, "email": f"n{sign_in.number - i}@example.org"}, headers=headers).status
            for i in range(n)]


sign_in.number = 0


def remotes(stack):
    return {json.loads(line).get("remote") for line in stack.gateway.log.read_text().splitlines() if line.startswith("{")}


def test_nobody_is_believed_by_default(own_stack):
    s = own_stack(workers=0, env={"LOGIN_RATE_LIMIT": "3"})
    c = Client(s)
    assert sign_in(c, "203.0.113.1", 3) == [401] * 3
    assert sign_in(c, "203.0.113.2") == [429]  # another spoofed name, the same peer
    wait_until(lambda: remotes(s) >= {"127.0.0.1"}, 30, "the access log")
    assert not any(r and r.startswith("203.") for r in remotes(s))


def test_a_header_of_an_untrusted_peer_is_ignored(own_stack):
    s = own_stack(workers=0, env={"LOGIN_RATE_LIMIT": "3", "TRUSTED_PROXIES": "10.0.0.0/8, fd00::/8"})
    c = Client(s)
    assert sign_in(c, "203.0.113.1", 3) == [401] * 3
    assert sign_in(c, "203.0.113.2") == [429]
    # nor is its word about the protocol
    assert c.get("/api/health", headers={"X-Forwarded-Proto": "http"}).status == 200


def test_clients_of_a_trusted_proxy_are_told_apart(own_stack):
    s = own_stack(workers=0, env={"LOGIN_RATE_LIMIT": "3", "TRUSTED_PROXIES": "127.0.0.0/8,10.0.0.0/8"})
    c = Client(s)
    assert sign_in(c, "203.0.113.1", 4) == [401] * 3 + [429]
    assert sign_in(c, "203.0.113.2", 4) == [401] * 3 + [429]
    # What the client wrote itself stands left of what the proxies added, and does not help it.
    assert sign_in(c, "198.51.100.7, 203.0.113.1") == [429]
    assert sign_in(c, "10.1.1.1, 203.0.113.1, 10.0.0.2") == [429]
    assert sign_in(c, "203.0.113.3, 10.0.0.2") == [401]
    # IPv6: a household has a network of addresses
    assert sign_in(c, "2001:db8:1:2::1", 3) == [401] * 3
    assert sign_in(c, "2001:db8:1:2:ffff::9") == [429]
    assert sign_in(c, "2001:db8:1:3::1") == [401]
    # without the header the proxy itself is the client
    assert sign_in(c) == [401]
    wait_until(lambda: remotes(s) >= {"203.0.113.1", "203.0.113.2", "203.0.113.3", "2001:db8:1:2::1", "127.0.0.1"}, 30, "the access log")
    assert "198.51.100.7" not in remotes(s) and "10.0.0.2" not in remotes(s)


def test_two_header_lines_are_one_list(own_stack):
    """Some proxies add a line instead of appending to the one that is there."""
    s = own_stack(workers=0, env={"TRUSTED_PROXIES": "127.0.0.1"})
    c = Client(s)
    import http.client
    connection = http.client.HTTPSConnection("127.0.0.1", s.https_port, context=c.context, timeout=10)
    connection.putrequest("GET", "/api/health")
    connection.putheader("X-Forwarded-For", "198.51.100.7")
    connection.putheader("x-forwarded-for", "203.0.113.9")
    connection.endheaders()
    assert connection.getresponse().status == 200
    connection.close()
    wait_until(lambda: "203.0.113.9" in remotes(s), 30, "the line of the access log")   # it is written after the answer
    assert "198.51.100.7" not in remotes(s)


def test_whoever_reached_the_proxy_without_tls_is_sent_to_https(own_stack):
    s = own_stack(workers=0, env={"TRUSTED_PROXIES": "127.0.0.1", "PUBLIC_URL": "https://lab.example"})
    c = Client(s)
    answer = c.get("/projects?x=1", headers={"X-Forwarded-Proto": "http"})
    assert answer.status == 301 and answer.headers["Location"] == "https://lab.example/projects?x=1"
    answer = c.post("/api/auth/login", WRONG, headers={"X-Forwarded-Proto": "http"})
    assert answer.status == 308
    assert c.get("/api/health", headers={"X-Forwarded-Proto": "https"}).status == 200


def test_a_wrong_list_stops_the_start(own_stack):
    s = own_stack(start=False, workers=0)
    for wrong in ("10.0.0.0/33", "proxy.example", "10.0.0.1/8"):
        done = subprocess.run([BUILD / "gateway"], env=s.daemon_env(TRUSTED_PROXIES=wrong), capture_output=True, text=True,
                              timeout=30)
        assert done.returncode != 0 and "TRUSTED_PROXIES" in done.stderr and wrong in done.stderr
