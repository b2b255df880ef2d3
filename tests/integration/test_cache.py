"""Pages of outlines are kept in Redis: X-Cache says so, they are the same bytes, and nobody reads what is not theirs."""
import time

import images
from api import Client


def test_a_page_is_read_again_from_the_cache(own_stack):
    s = own_stack(workers=1, env={"SEGWORKER_MODELS": "classical_nuclei", "CACHE_TTL": "600"})
    c, mallory = Client(s).register(), Client(s).register()
    image = c.upload(c.project(), images.png(images.nuclei(count=20, seed=8)[0])).json
    c.wait_job(c.segment(image, model="classical_nuclei")["jobId"])
    path = f"/api/images/{image['id']}/polygons"

    def pair(query):
        first, again = c.get(path + query), c.get(path + query)
        assert (first.status, again.status) == (200, 200)
        assert (first.headers["X-Cache"], again.headers["X-Cache"]) == ("MISS", "HIT"), query
        assert first.body == again.body
        for name in "Content-Type", "ETag", "X-Next-After":
            assert first.headers[name] == again.headers[name], name
        return first

    whole = pair("?limit=1000")
    assert whole.headers["X-Next-After"] is None and len(whole.json["features"]) > 9
    assert pair("?limit=7").headers["X-Next-After"] == "7"
    for query in "?limit=7&after=7", "?format=binary", "?measurements=false", "?bbox=0,0,100,100":
        pair(query)
    hit = c.get(path + "?limit=7", headers={"If-None-Match": whole.headers["ETag"]})
    assert hit.status == 200 and hit.headers["X-Cache"] == "HIT"    # another page's tag is no match
    assert c.get(path + "?limit=1000", headers={"If-None-Match": whole.headers["ETag"]}).status == 304
    assert mallory.get(path + "?limit=1000").status == 404
    assert s.metric(s.metrics_port, "spheroseg_cache_hits_total", cache="polygons") >= 7
    assert 0 < int(s.redis_cli("PTTL", "sg:cache:" + whole.headers["ETag"].strip('"'))) <= 600000

    # A page that is too large to be kept is made each time, whole.
    s.sql("INSERT INTO objects SELECT segmentation_id, idx + 1000 * g, bbox, geometry, area, confidence, measurements "
          "FROM objects, generate_series(1, 300) g")
    for _ in range(2):
        large = c.get(path + "?limit=20000")
        assert large.headers["X-Cache"] == "MISS" and len(large.body) > 4 << 20
        assert len(large.json["features"]) == 301 * len(whole.json["features"])
    assert s.redis_cli("EXISTS", "sg:cache:" + large.headers["ETag"].strip('"')) == "0"

    # A new result is another page; without Redis pages are made as ever.
    c.wait_job(c.segment(image, model="classical_nuclei", threshold=0.6)["jobId"])
    assert c.get(path + "?limit=1000").headers["X-Cache"] == "MISS"
    s.redis.stop()
    began = time.monotonic()
    for _ in range(20):
        answer = c.get(path + "?limit=7")
        assert answer.status == 200 and answer.headers["X-Cache"] == "MISS" and len(answer.json["features"]) == 7
    assert time.monotonic() - began < 30
    assert c.delete(f"/api/images/{image['id']}").status in (204, 503)


def test_the_cache_can_be_off(own_stack):
    s = own_stack(workers=1, env={"SEGWORKER_MODELS": "classical_nuclei", "CACHE_ENABLED": "false"})
    c = Client(s).register()
    image = c.upload(c.project(), images.png(images.nuclei(count=5)[0])).json
    c.wait_job(c.segment(image, model="classical_nuclei")["jobId"])
    for _ in range(2):
        answer = c.polygons(image)
        assert answer.status == 200 and answer.headers["X-Cache"] is None
    assert s.redis_cli("EXISTS", "sg:cache") == "0"
