"""Bad input: each gets the documented status, or a failed job with a reason a biologist understands."""
import http.client

import images
import pytest
from api import Client

NUCLEI = images.png(images.nuclei()[0])


def problem(answer, status, code=None):
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    p = answer.json
    assert p["status"] == status and p["code"] and p["title"] and len(p["detail"]) > 10
    if code:
        assert p["code"] == code
    return p


def test_empty_file(stack, alice):
    problem(alice.upload(alice.project(), b""), 422, "image_empty")


def test_text_named_tif(stack, alice):
    problem(alice.upload(alice.project(), b"Dear diary, today I cultured spheroids. " * 50, "diary.tif"), 415,
            "image_unknown_format")


def test_name_does_not_matter(stack, alice):
    answer = alice.upload(alice.project(), NUCLEI, "really-a-png.tif")
    assert answer.status == 201 and answer.json["format"] == "png"


def test_header_of_60000_by_60000(stack, alice):
    before = stack.metric(stack.metrics_port, "process_resident_memory_bytes")
    problem(alice.upload(alice.project(), images.png_header_only(60000, 60000)), 413, "image_too_large")
    after = stack.metric(stack.metrics_port, "process_resident_memory_bytes")
    assert after - before < 64 * 2**20


@pytest.mark.parametrize("data", [images.truncated(NUCLEI, 0.5), images.truncated(NUCLEI, 0.9)], ids=["half", "most"])
def test_truncated_png(stack, alice, data):
    """The header is whole, so the upload stands; the job says what is wrong with the file and is not retried."""
    answer = alice.upload(alice.project(), data)
    if answer.status == 201:
        job = alice.wait_job(alice.segment(answer.json)["jobId"])
        assert job["state"] == "failed" and job["attempt"] == 1
        assert job["error"]["code"] in ("image_truncated", "image_corrupt") and len(job["error"]["message"]) > 20
        problem(alice.get(f"/api/images/{answer.json['id']}/thumbnail"), 422)
    else:
        problem(answer, 422)


def test_truncated_header(stack, alice):
    problem(alice.upload(alice.project(), NUCLEI[:20]), 422)


def test_three_pages(stack, alice):
    answer = alice.upload(alice.project(), images.tiff16(images.nuclei()[0], pages=3), "stack.tif")
    assert answer.status == 201 and answer.json["pages"] == 3
    job = alice.wait_job(alice.segment(answer.json)["jobId"])
    assert job["state"] == "completed"
    note = alice.get(f"/api/images/{answer.json['id']}/segmentation").json["note"]
    assert "page" in note.lower()


def test_one_colour(stack, alice):
    image = alice.upload(alice.project(), images.one_colour()).json
    job = alice.wait_job(alice.segment(image)["jobId"])
    assert job["state"] == "completed" and job["objectCount"] == 0
    assert len(alice.get(f"/api/images/{image['id']}/segmentation").json["note"]) > 10
    assert alice.polygons(image).json["features"] == []


def test_body_over_the_limit(own_stack):
    s = own_stack(workers=0, env={"MAX_UPLOAD_SIZE": "100000"})
    c = Client(s).register()
    project = c.project()
    try:
        problem(c.upload(project, b"\x89PNG\r\n\x1a\n" + b"x" * 200000), 413, "upload_too_large")
    except (ConnectionError, BrokenPipeError):
        pass  # the gateway may close while we still send
    # without a Content-Length the limit holds while reading
    connection = http.client.HTTPSConnection("127.0.0.1", s.https_port, context=c.context, timeout=20)
    try:
        connection.request("POST", f"/api/projects/{project['id']}/images?name=x.png", body=iter([b"x" * 50000] * 4),
                           headers={"Authorization": f"Bearer {c.token}", "Transfer-Encoding": "chunked"}, encode_chunked=True)
        assert connection.getresponse().status in (411, 413)
    except (ConnectionError, BrokenPipeError):
        pass
    finally:
        connection.close()
    assert c.get(f"/api/projects/{project['id']}/images").json["total"] == 0
    assert c.upload(project, NUCLEI).status == 201
    assert not [p for p in (s.dir / "storage").rglob("*") if p.is_file() and p.stat().st_size > 100000]


def test_multipart_upload(stack, alice):
    boundary = "----b0undary"
    body = (f"--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../../evil \u00fc.png\"\r\n"
            "Content-Type: image/png\r\n\r\n").encode() + NUCLEI + f"\r\n--{boundary}--\r\n".encode()
    answer = alice.post(f"/api/projects/{alice.project()['id']}/images", body,
                        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
    assert answer.status == 201, answer
    assert "/" not in answer.json["name"] and answer.json["name"].endswith(".png")
    cut = alice.post(f"/api/projects/{alice.project()['id']}/images", body[:-40],
                     headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
    assert cut.status in (400, 422)


@pytest.mark.parametrize("request_body,code", [
    ({"priority": 0}, None), ({"priority": 11}, None), ({"priority": "high"}, None), ({"threshold": 0.95}, None),
    ({"threshold": "x"}, None), ({"detectHoles": 3}, None), ({"model": 5}, None)])
def test_wrong_parameters(stack, alice, request_body, code):
    image = alice.upload(alice.project(), NUCLEI).json
    problem(alice.post(f"/api/images/{image['id']}/segmentation", request_body), 400, code)


def test_missing_model(stack, alice):
    image = alice.upload(alice.project(), NUCLEI).json
    p = problem(alice.post(f"/api/images/{image['id']}/segmentation", {"model": "no-such-model"}), 422, "model_unknown")
    assert "nuclei" in p["detail"]


def test_no_model_at_all(own_stack):
    s = own_stack(workers=0)
    c = Client(s).register()
    image = c.upload(c.project(), NUCLEI).json
    problem(c.post(f"/api/images/{image['id']}/segmentation", {}), 503, "no_model_available")


def test_limits_on_unfinished_jobs(own_stack):
    s = own_stack(workers=0, env={"MAX_QUEUED_PER_USER": "2", "MAX_QUEUED_TOTAL": "3"})
    s.sql("INSERT INTO models (name, version, title, description, sha256, manifest) VALUES ('nuclei','1','t','d','x','{}')")
    c, d = Client(s).register(), Client(s).register()
    p = c.project()
    ids = [c.upload(p, NUCLEI, f"{n}.png").json for n in range(3)]
    for image in ids[:2]:
        c.segment(image)
    answer = c.post(f"/api/images/{ids[2]['id']}/segmentation", {})
    problem(answer, 429)
    assert int(answer.headers["Retry-After"]) > 0
    q = d.project()
    d.segment(d.upload(q, NUCLEI).json)
    answer = d.post(f"/api/images/{d.upload(q, NUCLEI).json['id']}/segmentation", {})
    problem(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize("body", ["", "[]", "null", "{", '{"title": 5}', '{"title": ""}', '{"title": "%s"}' % ("x" * 300),
                                  '{"title":"a","unknown":1}', "[" * 5000, '{"title":"\\u0000"}', '{"title":"\ud800"}'])
def test_bad_json(stack, alice, body):
    answer = alice.post("/api/projects", body.encode("utf-8", "surrogatepass"), headers={"Content-Type": "application/json"})
    problem(answer, 400)


def test_huge_json(stack, alice):
    answer = alice.post("/api/projects", b'{"title":"' + b"x" * 5_000_000 + b'"}', headers={"Content-Type": "application/json"})
    problem(answer, 413)
