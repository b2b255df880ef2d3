"""Accounts: register, sign in, refresh with rotation and reuse detection, sign out."""
import time

from api import Client


def cookie_line(answer, name):
    return next(c for c in answer.headers.get_all("Set-Cookie") if c.startswith(name + "="))


def test_register_signs_in_and_sets_safe_cookies(stack):
    c = Client(stack)
    answer = c.post("/api/auth/register", {"email": "Ada@Example.org", "password": "a long password", "displayName": "Ada"})
    assert answer.status == 201
    assert answer.json["user"]["displayName"] == "Ada"
    assert 0 < answer.json["expiresIn"] <= 900
    for name in ("sg_refresh", "sg_access"):
        line = cookie_line(answer, name)
        for flag in ("HttpOnly", "Secure", "SameSite=Strict"):
            assert flag.lower() in line.lower(), line
    c.token = answer.json["accessToken"]
    assert c.get("/api/auth/me").json["email"].lower() == "ada@example.org"
    again = c.post("/api/auth/register", {"email": "ADA@example.org", "password": "another password"})
    assert again.status == 409 and again.code


def test_password_hash_is_argon2id(stack, alice):
    (stored,), = stack.sql("SELECT password_hash FROM users WHERE id = %s", alice.user["id"])
    assert stored.startswith("$argon2id$")


def test_wrong_password_and_unknown_address_look_the_same(stack, alice):
    wrong = alice.post("/api/auth/login", {"email": alice.email, "password": "not the password"}, auth=False)
    unknown = alice.post("/api/auth/login", {"email": "nobody@example.org", "password": "not the password"}, auth=False)
    assert wrong.status == unknown.status == 401
    assert wrong.code == unknown.code and wrong.json["detail"] == unknown.json["detail"]


def test_short_password_and_bad_address_are_refused(stack):
    c = Client(stack)
    assert c.post("/api/auth/register", {"email": "x@example.org", "password": "short"}).status == 400
    assert c.post("/api/auth/register", {"email": "no address", "password": "long enough password"}).status == 400
    assert c.post("/api/auth/register", {"email": 7, "password": ["x"]}).status == 400
    assert c.post("/api/auth/register", "{not json", headers={"Content-Type": "application/json"}).status == 400


def test_refresh_rotates_and_reuse_revokes_the_family(stack):
    c = Client(stack).register()
    first = c.cookies["sg_refresh"]
    answer = c.post("/api/auth/refresh", auth=False, cookies=True)
    assert answer.status == 200 and answer.json["accessToken"]
    second = c.cookies["sg_refresh"]
    assert second != first
    thief = Client(stack)
    thief.cookies = {"sg_refresh": first}
    assert thief.post("/api/auth/refresh", auth=False, cookies=True).status == 401
    # The stolen token was used twice, so the honest one is revoked with it.
    c.cookies["sg_refresh"] = second
    assert c.post("/api/auth/refresh", auth=False, cookies=True).status == 401


def test_logout_ends_the_session(stack):
    c = Client(stack).register()
    kept = dict(c.cookies)
    assert c.post("/api/auth/logout", cookies=True).status == 204
    c.cookies = kept
    assert c.post("/api/auth/refresh", auth=False, cookies=True).status == 401


def test_cookie_reads_but_never_writes(stack):
    c = Client(stack).register()
    assert c.get("/api/auth/me", auth=False, cookies=True).status == 200
    assert c.post("/api/projects", {"title": "by cookie"}, auth=False, cookies=True).status == 401


def test_wrong_tokens(stack, alice):
    good = alice.token
    head, body, signature = good.split(".")
    for token in ("", "x", "a.b.c", f"{head}.{body}.", f"{head}.{body}.{signature[:-4]}AAAA",
                  "eyJhbGciOiJub25lIn0." + body + "."):
        answer = alice.get("/api/auth/me", auth=False, headers={"Authorization": f"Bearer {token}"})
        assert answer.status == 401, token
        assert answer.headers["Content-Type"].startswith("application/problem+json")


def test_tokens_expire(own_stack):
    s = own_stack(workers=0, env={"ACCESS_TOKEN_TTL": "5"})
    c = Client(s).register()
    assert c.get("/api/auth/me").status == 200
    # The clock cannot be turned here: a token whose signature is right but whose time is over is what
    # a gateway with the same secret and the shortest life would have issued; wait it out.
    time.sleep(6)
    assert c.get("/api/auth/me").status == 401
    assert c.post("/api/auth/refresh", auth=False, cookies=True).status == 200


def test_failed_sign_ins_are_limited(own_stack):
    s = own_stack(workers=0, env={"LOGIN_RATE_LIMIT": "5"})
    c = Client(s).register()
    answers = [c.post("/api/auth/login", {"email": c.email, "password": "wrong password!"}, auth=False) for _ in range(8)]
    assert [a.status for a in answers[:5]] == [401] * 5
    assert answers[-1].status == 429 and int(answers[-1].headers["Retry-After"]) > 0


def test_secrets_never_reach_the_log(own_stack):
    s = own_stack(workers=0)
    c = Client(s).register(password="a very secret pass phrase")
    c.post("/api/auth/login", {"email": c.email, "password": "a very secret pass phrase"}, auth=False)
    c.post("/api/auth/refresh", auth=False, cookies=True)
    log = s.gateway.log.read_text()
    for secret in ("very secret pass", c.token, c.cookies["sg_refresh"], s.pg_password, s.redis_password):
        assert secret not in log
