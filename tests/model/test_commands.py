"""What of Redis is used: commands that Redis 7.0 has and no module brings, so that Valkey and older servers serve as well.

proto/redis-acl.conf is the list of what the daemons may send (the other tests run as that user); what Lua scripts and C
code name must be in it, and each name in it must be old enough by the running server's own account.
"""
import pathlib
import re

import pytest
from test_lua import redis  # noqa: F401  (a fixture)

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEWEST = (7, 0, 0)
LUA_API = {"call", "pcall", "error_reply", "status_reply", "sha1hex"}   # server.* is Valkey's alone
SENTINEL = {"sentinel"}  # sent to Sentinels only, which have access lists of their own


def access_list():
    text = (ROOT / "proto/redis-acl.conf").read_text()
    line = next(line for line in text.splitlines() if line.startswith("user spheroseg "))
    return {word[1:] for word in line.split() if word.startswith("+")}


def without_comments(text, kind):
    return re.sub(r"--[^\n]*", "", text) if kind == "lua" else re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)


def named_in_lua(text):
    """Names of the commands, lower case. A name that is computed cannot be checked, so it is not allowed."""
    text = without_comments(text, "lua")
    api = set(re.findall(r"\bredis\s*\.\s*(\w+)", text))
    assert api <= LUA_API, f"not in Redis 7.0's Lua: {api - LUA_API}"
    assert not re.search(r"\bserver\s*[.\[]|\bredis\s*\[", text)
    calls = re.findall(r"\bredis\s*\.\s*p?call\s*\(([^,)]*)", text)
    assert len(calls) == len(re.findall(r"\bp?call\b", text)), "call under another name"
    word = r"""['"]([A-Za-z]+)['"]"""
    names = set()
    for first in calls:  # 'NAME', or a choice: … and 'NAME' or 'NAME'
        found = re.fullmatch(rf"\s*{word}\s*", first) or re.fullmatch(rf".* and {word} or {word}\s*", first)
        assert found, f"a command whose name is computed: {first}"
        names |= {name.lower() for name in found.groups()}
    return names


def named_in_c(text, known):
    """Commands at the head of an argv array or of a format."""
    text = without_comments(text, "c")
    heads = re.findall(r'\{\s*"([A-Z]+)"', text) + re.findall(r'Command\(\w+,[^"]*"([A-Z]+)[ "]', text)
    heads += re.findall(r'\w\[(?:argc\+\+|0)\] = "([A-Z]+)"', text)
    heads += re.findall(r'Command\(\w+,[^"]*"[A-Z]+ %s" : "([A-Z]+) %s"', text)
    return {name.lower() for name in heads if name.lower() in known}


def version(text):
    return tuple(int(n) for n in text.split("."))


def facts(reply):
    return dict(zip(reply[0::2], reply[1::2]))


@pytest.fixture(scope="module")
def documented(redis):  # noqa: F811
    return {name: facts(doc) for name, doc in facts(redis("COMMAND", "DOCS")).items()}


def too_new(names, documented):
    wrong = {}
    for name in names:
        doc = documented.get(name)
        if doc is None:
            wrong[name] = "unknown to the server"
        elif "module" in doc or "." in name:
            wrong[name] = "brought by a module"
        elif version(doc["since"]) > NEWEST:
            wrong[name] = f"since {doc['since']}"
        elif "deprecated" in doc.get("doc_flags", []) and version(doc["deprecated_since"]) > NEWEST:
            continue    # grew old after 7.0: still there everywhere
    return wrong


def test_the_daemons_may_send_only_old_commands(documented):
    allowed = access_list()
    assert len(allowed) > 40
    assert too_new(allowed, documented) == {}


@pytest.mark.parametrize("script", sorted((ROOT / "proto/lua").glob("*.lua")), ids=lambda p: p.stem)
def test_script_uses_allowed_commands(script):
    names = named_in_lua(script.read_text())
    assert names and names <= access_list()


def test_c_code_uses_allowed_commands(documented):
    names = set()
    for folder in ("common", "gateway", "segworker"):
        for file in (ROOT / folder).rglob("*.c"):
            text = file.read_text()
            if re.search(r"\brds_\w+\(|\bredis\w+\(", text):
                names |= named_in_c(text, set(documented))
    assert {"evalsha", "publish", "subscribe", "unsubscribe", "blpop", "auth", "select", "role", "scan", "sentinel"} <= \
        names | ({"sentinel"} - set(documented))
    assert names <= access_list() | SENTINEL, names - access_list()


def test_sentinels_users_need_only_old_commands(documented):
    text = (ROOT / "proto/redis-acl-sentinel.conf").read_text()
    names = {word[1:].split("|")[0] for line in text.splitlines() if line.startswith("user ")
             for word in line.split() if word.startswith("+")}
    assert "replicaof" in names
    assert too_new(names, documented) == {}


def test_a_new_command_is_noticed(documented):
    """Each way in which a wrong name could come in, and that it is seen."""
    some = dict(documented, hgetex={"since": "8.0.0"}, **{"ft.search": {"since": "1.0.0", "module": "search"}})
    assert too_new({"get", "hgetex", "ft.search", "nonsense"}, some).keys() == {"hgetex", "ft.search", "nonsense"}
    for lua in ("return redis.call(ARGV[1])", "local c = redis.call return c('GET')", "return server.call('GET', 'x')",
                "redis.setresp(3)", "return redis['call']('GET')"):
        with pytest.raises(AssertionError):
            named_in_lua(lua)
    assert named_in_lua("redis.call('hGetEx', KEYS[1]) redis.pcall( \"GET\") -- redis.call('SET')") == {"hgetex", "get"}
    c = 'const char *a[] = {"HGETEX", x}; argv[argc++] = "GETEX"; redisAppendCommand(c, "LPOP %s"); /* {"DEL"} */ f({"NX"});'
    assert named_in_c(c, {"hgetex", "getex", "lpop", "del"}) == {"hgetex", "getex", "lpop"}
