"""Transport, headers, routing, and the wrong person on every route."""
import http.client
import re
import socket
import ssl
import uuid

import images
import pytest
import yaml
from api import Client
from harness import ROOT

OPENAPI = yaml.safe_load((ROOT / "proto/openapi.yaml").read_text())


def test_http_redirects_to_https(stack):
    c = http.client.HTTPConnection("127.0.0.1", stack.http_port, timeout=20)
    c.request("GET", "/projects?x=1")
    answer = c.getresponse()
    assert answer.status in (301, 308)
    assert answer.headers["Location"] == f"https://127.0.0.1:{stack.https_port}/projects?x=1"


def test_old_tls_is_refused(stack):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", stack.https_port), timeout=20) as raw:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(raw)


def test_security_headers(stack, alice):
    for answer in (alice.get("/api/health"), alice.get("/"), alice.get("/api/nothing")):
        for name in ("Strict-Transport-Security", "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"):
            assert answer.headers[name], (name, answer)
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_unknown_path_and_method(stack, alice):
    answer = alice.get("/api/nothing")
    assert answer.status == 404 and answer.headers["Content-Type"].startswith("application/problem+json")
    answer = alice.call("PUT", "/api/projects")
    assert answer.status == 405 and "GET" in answer.headers["Allow"]
    for path in ("/api/images/not-a-uuid", "/api/images/%00", "/../../etc/passwd", "/api/images/' OR 1=1"):
        assert alice.get(path.replace(" ", "%20")).status in (400, 404), path


def test_metrics_are_not_public(stack, alice):
    assert b"# TYPE" not in alice.get("/metrics").body


def operations():
    for path, item in OPENAPI["paths"].items():
        for method, operation in item.items():
            # the WebSocket handshake has tests of its own
            if method in ("get", "post", "patch", "put", "delete") and path != "/api/ws":
                yield pytest.param(method.upper(), path, operation, id=f"{method} {path}")


@pytest.fixture(scope="module")
def belongings(stack):
    """Alice's project, image and finished job, and Mallory."""
    alice, mallory = Client(stack).register(), Client(stack).register()
    project = alice.project("private")
    array, _ = images.nuclei()
    image = alice.upload(project, images.png(array)).json
    job = alice.segment(image)
    alice.wait_job(job["jobId"])
    return alice, mallory, {"projectId": project["id"], "imageId": image["id"], "jobId": job["jobId"],
                            "level": 8, "column": 0, "row": 0, "service": "database", "name": "nuclei"}


@pytest.mark.parametrize("method,path,operation", operations())
def test_every_route_needs_a_sign_in_and_the_right_person(stack, belongings, method, path, operation):
    alice, mallory, ids = belongings
    public = operation.get("security") == []
    full = re.sub(r"{(\w+)}", lambda m: str(ids[m[1]]), path)
    body = {} if method in ("POST", "PATCH") else None
    if operation["operationId"] == "segmentBatch":
        body = {"all": True}
    if not public:
        nobody = Client(stack).call(method, full, body=body, auth=False)
        assert nobody.status == 401, nobody
    owned = any(p in path for p in ("{projectId}", "{imageId}", "{jobId}"))
    if owned:
        headers = {"If-Match": '"1"'}
        other = mallory.call(method, full, body=body, headers=headers)
        assert other.status == 404, other
        missing = re.sub(r"{(\w+)}", lambda m: str(uuid.uuid4()) if m[1].endswith("Id") else str(ids[m[1]]), path)
        assert alice.call(method, missing, body=body, headers=headers).status == 404
    # whatever Mallory tried, Alice still has everything
    if owned and method == "DELETE":
        assert alice.get(f"/api/images/{ids['imageId']}").status == 200
        assert alice.get(f"/api/images/{ids['imageId']}/polygons").json["total"] > 0


def test_lists_show_only_ones_own(stack, belongings):
    _, mallory, ids = belongings
    assert mallory.get("/api/projects").json["items"] == []
    assert mallory.get("/api/segmentation/jobs").json["items"] == []


def test_slow_headers_do_not_block_others(stack, alice):
    """Twenty connections that never finish their request; another one is still served at once."""
    held = []
    try:
        for _ in range(20):
            raw = socket.create_connection(("127.0.0.1", stack.https_port), timeout=20)
            s = alice.context.wrap_socket(raw, server_hostname="127.0.0.1")
            s.sendall(b"GET /api/health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            held.append(s)
        assert alice.get("/api/health/live", timeout=3).status == 200
    finally:
        for s in held:
            s.close()
