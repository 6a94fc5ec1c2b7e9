"""Every route, with every method, with every kind of key, on every kind of resource (I1, I2, I4).

The expected result is computed from the tables of the world by the few lines below, and by no code of the
gateway. Mismatches are collected, so that one failure shows all of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import quote

import pytest

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")
ABSENT_MD5 = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A path, and what it names."""

    path: str
    kind: str
    model: str | None = None
    package: str | None = None
    file: str | None = None
    md5: str | None = None


def targets(facts):
    """The whole world by its paths: everything that exists, and next to each path one that does not."""
    yield Target(path="/v1/models", kind="catalogue")
    yield Target(path="/v1/whoami", kind="whoami")
    for path in (
        "/",
        "/v1",
        "/v2/models",
        "/v1/models.json",
        "/v1/whoami/",
        "/metrics",
        "/readyz",
        "/admin/v1",
    ):
        yield Target(path=path, kind="unrouted")
    for path in ("/v1/models/acme//cars", "/v1/models/acme/cars/1/-/pkgA1/../x", "/v1/blobs/nonsense"):
        yield Target(path=path, kind="malformed")
    names = [*facts.cache, *facts.aliases, "acme/gone/1", "nobody/nothing/0"]
    for model in names:
        path = f"/v1/models/{quote(model, safe='/')}"
        yield Target(path=path, kind="model", model=model)
        packages = facts.cache.get(facts.aliases.get(model, model), {})
        for package, files in [*packages.items(), ("pkgNone", {})]:
            yield Target(path=f"{path}/-/{package}", kind="package", model=model, package=package)
            for file in [*files, "none.bin"]:
                yield Target(
                    path=f"{path}/-/{package}/{file}", kind="file", model=model, package=package, file=file
                )
    contents = {
        facts.digest_of(content): None
        for packages in facts.cache.values()
        for files in packages.values()
        for content in files.values()
    }
    for md5 in [*contents, ABSENT_MD5]:
        yield Target(path=f"/v1/blobs/{md5}", kind="blob", md5=md5)


class Expectation:
    """The policy once more, from the tables: the status and the body that a caller has to get."""

    def __init__(self, facts):
        self._facts = facts

    def of(self, caller, method, target):
        if target.kind == "unrouted":
            return 404, None
        if method not in ("GET", "HEAD"):
            return 405, None
        if not caller.is_valid:
            return 401, None
        if target.kind == "malformed":
            return 400, None
        return getattr(self, f"_{target.kind}")(caller, target)

    def _whoami(self, caller, target):
        return 200, None

    def _catalogue(self, caller, target):
        if caller.tenant is None or not caller.scopes & {"discover", "read"}:
            return 403, None
        shown = sorted(model for model in self._facts.cache if caller.may("d", model))
        return 200, {"models": [{"id": one, "link": f"/v1/models/{one}"} for one in shown], "after": None}

    def _packages(self, model):
        return self._facts.cache.get(self._facts.aliases.get(model, model), {})

    def _model(self, caller, target):
        shown = [one for one in self._packages(target.model) if caller.may("d", target.model, one)]
        if not shown:
            return 404, None
        canonical = self._facts.aliases.get(target.model, target.model)
        link = f"/v1/models/{canonical}"
        packages = [{"id": one, "link": f"{link}/-/{one}"} for one in sorted(shown)]
        return 200, {"id": canonical, "link": link, "packages": packages}

    def _package(self, caller, target):
        files = self._packages(target.model).get(target.package)
        if files is None or not caller.may("d", target.model, target.package):
            return 404, None
        canonical = self._facts.aliases.get(target.model, target.model)
        link = f"/v1/models/{canonical}/-/{target.package}"
        entries = []
        for file in sorted(files):
            if (canonical, target.package, file) in self._facts.unservable:
                continue
            is_unhashed = file in self._facts.unhashed.get(canonical, ())
            md5 = None if is_unhashed else self._facts.digest_of(files[file])
            blob = None if md5 is None else f"/v1/blobs/{md5}"
            size = len(files[file])
            entries.append({"file": file, "size": size, "md5": md5, "link": f"{link}/{file}", "blob": blob})
        return 200, {
            "model": canonical,
            "package": target.package,
            "link": link,
            "files": entries,
            "after": None,
        }

    def _file(self, caller, target):
        content = self._packages(target.model).get(target.package, {}).get(target.file)
        canonical = self._facts.aliases.get(target.model, target.model)
        is_there = (
            content is not None and (canonical, target.package, target.file) not in self._facts.unservable
        )
        if is_there and caller.may("r", target.model, target.package):
            return 200, content
        return (403 if is_there and caller.may("d", target.model, target.package) else 404), None

    def _blob(self, caller, target):
        """By the caller's own packages: the digest opens nothing (I2)."""
        for model, packages in self._facts.cache.items():
            for package, files in packages.items():
                for file, content in files.items():
                    if (
                        (model, package, file) not in self._facts.unservable
                        and file not in self._facts.unhashed.get(model, ())
                        and self._facts.digest_of(content) == target.md5
                        and caller.may("r", model, package)
                    ):
                        return 200, content
        return 404, None


def mismatch(expected, answer, method):
    """What is wrong with an answer, or None."""
    status, body = expected
    if answer.status != status:
        return f"{answer.status} instead of {status}"
    if method == "HEAD":
        return "a body after HEAD" if answer.body else None
    if answer.is_cut:
        return "a short body"
    if isinstance(body, bytes) and answer.body != body:
        return f"other bytes: {answer.body[:40]!r}"
    if isinstance(body, dict) and answer.json() != body:
        return f"another document: {answer.json()}"
    if status >= 400 and answer.json()["status"] != status:
        return "a problem that names another status"
    return None


def test_the_tables_name_every_kind_of_outcome(facts, world):
    # A table in which everything is refused would agree with a gateway that refuses everything.
    expectation = Expectation(facts)
    reached = {
        (target.kind, expectation.of(caller, "GET", target)[0])
        for caller in world.callers.values()
        for target in targets(facts)
    }
    for kind in ("model", "package", "blob"):
        assert {(kind, 200), (kind, 401), (kind, 404)} <= reached
    assert {("file", 200), ("file", 401), ("file", 403), ("file", 404), ("catalogue", 403)} <= reached


CALLERS_WITH_VALID_KEYS = (
    *("acme", "globex", "hooli", "acme reads only", "acme discovers only", "acme infers only"),
    *("acme audits only", "acme from inside", "acme rotated in", "acme in overlap", "acme successor"),
    *("acme opaque", "acme imported", "acme by x-api-key", "admin"),
)
CALLERS_WITHOUT = (
    *("acme from outside", "acme expired", "acme not yet", "acme revoked", "acme rotated out", "initech"),
    *("unknown", "mistyped", "unknown opaque", "nobody"),
)


def test_every_caller_of_the_world_is_in_the_matrix(world):
    assert {*CALLERS_WITH_VALID_KEYS, *CALLERS_WITHOUT} == set(world.callers)
    assert all(world.callers[name].is_valid for name in CALLERS_WITH_VALID_KEYS)


@pytest.mark.parametrize("name", CALLERS_WITH_VALID_KEYS)
def test_a_valid_key_gets_exactly_what_the_tables_say(name, world, facts, talk):
    caller, expectation, wrong = world.callers[name], Expectation(facts), []
    for target in targets(facts):
        answer = talk.get(target.path, headers=caller.headers)
        found = mismatch(expectation.of(caller, "GET", target), answer, "GET")
        if found:
            wrong.append(f"GET {target.path}: {found}")
    assert wrong == []


@pytest.mark.parametrize("name", CALLERS_WITHOUT)
def test_whoever_has_no_valid_key_gets_one_and_the_same_answer_everywhere(name, world, facts, talk):
    caller, expectation, wrong, bodies = world.callers[name], Expectation(facts), [], set()
    for target in list(targets(facts))[::4]:
        answer = talk.get(target.path, headers=caller.headers)
        expected = expectation.of(caller, "GET", target)
        found = mismatch(expected, answer, "GET")
        if found:
            wrong.append(f"GET {target.path}: {found}")
        if expected[0] == 401:
            bodies.add(answer.comparable())
    assert wrong == []
    assert len(bodies) == 1


def test_all_who_have_no_valid_key_get_the_same_401(world):
    answers = {
        world.wire.get("/v1/models/acme/cars/1", headers=world.callers[name].headers).comparable()
        for name in CALLERS_WITHOUT
    }
    assert len(answers) == 1


ONE_OF_EACH_KIND = (
    *("/v1/models", "/v1/whoami", "/v1/models/acme/cars/1", "/v1/models/globex/cars/1"),
    *("/v1/models/acme/cars/1/-/pkgA1", "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"),
    *("/v1/models/acme-cars/-/pkgA1/weights.onnx", "/v1/models/globex/cars/1/-/pkgA1/weights.onnx"),
    *("/v1/models/globex/lab/1/-/pkgL1/weights.onnx", "/v1/models/acme//cars", "/nowhere"),
)


@pytest.mark.parametrize("name", ["acme", "globex", "acme discovers only", "admin", "acme revoked", "nobody"])
def test_a_method_is_refused_by_the_shape_of_the_route_alone(name, world, facts, talk):
    caller, expectation, wrong = world.callers[name], Expectation(facts), []
    by_path = {target.path: target for target in targets(facts)}
    paths = [*ONE_OF_EACH_KIND[:-1], f"/v1/blobs/{facts.digest_of(facts.shared)}"]
    for target in [*(by_path[path] for path in paths), Target(path="/nowhere", kind="unrouted")]:
        for method in METHODS:
            answer = talk.request(method, target.path, headers=caller.headers)
            expected = expectation.of(caller, method, target)
            found = mismatch(expected, answer, method)
            if expected[0] == 405 and answer.header("allow") != "GET, HEAD":
                found = "no Allow"
            if found:
                wrong.append(f"{method} {target.path}: {found}")
    assert wrong == []


@pytest.mark.parametrize("method", ["BREW", "get", "Get", "G", "GETT"])
def test_a_method_that_http_does_not_know_is_refused_alike_for_everybody(method, world):
    answers = {
        world.wire.request(method, path, key).comparable()
        for path in ("/v1/models", "/v1/models/acme/cars/1", "/nowhere")
        for key in (world.token("acme"), world.token("globex"), None)
    }
    assert len(answers) == 1
    assert answers.pop()[0] == 400


def test_head_answers_as_get_but_for_the_body(world, facts, talk):
    wrong = []
    for name in ("acme", "globex", "acme discovers only", "nobody"):
        headers = world.callers[name].headers
        for target in list(targets(facts))[::2]:
            get = talk.request("GET", target.path, headers=headers)
            head = talk.request("HEAD", target.path, headers=headers)
            if (head.status, head.comparable()[1]) != (get.status, get.comparable()[1]) or head.body:
                wrong.append(f"{name} {target.path}: {head.status} {head.headers} for {get.headers}")
    assert wrong == []


def test_whoami_says_whose_key_it_is_and_not_the_key(world, talk):
    for name in CALLERS_WITH_VALID_KEYS:
        caller = world.callers[name]
        answer = talk.get("/v1/whoami", headers=caller.headers)
        assert answer.json()["tenant"] == caller.tenant
        assert caller.key_id in (None, answer.json()["key_id"])
        if caller.tenant:
            assert set(answer.json()["scopes"]) == caller.scopes
        assert caller.token.encode() not in answer.body
        assert caller.token not in json.dumps(answer.headers)


def test_a_listing_is_paged_without_losing_or_repeating_a_model(world, talk):
    headers, seen, path = world.callers["acme"].headers, [], "/v1/models?limit=2"
    for _ in range(20):
        answer = talk.get(path, headers=headers)
        page = answer.json()
        assert len(page["models"]) <= 2
        seen += [one["id"] for one in page["models"]]
        if page["after"] is None:
            assert answer.header("link") is None
            break
        path = answer.header("link").partition(">")[0].removeprefix("<")
    everything = talk.get("/v1/models?limit=1000", headers=headers).json()["models"]
    assert seen == [one["id"] for one in everything]


@pytest.mark.parametrize("after", ["globex/cars/1", "nobody/nothing/0", "acme/open/secret", "zzz"])
def test_paging_after_a_hidden_model_tells_nothing_of_it(after, world, talk):
    # The same page must follow a model that exists and is hidden as one that exists nowhere.
    headers = world.callers["hooli"].headers
    shown = [one["id"] for one in talk.get("/v1/models", headers=headers).json()["models"]]
    rest = talk.get(f"/v1/models?after={quote(after, safe='')}", headers=headers).json()["models"]
    assert [one["id"] for one in rest] == [one for one in shown if one > after]


def test_serving_changes_nothing_in_the_cache(world, facts, talk):
    # I9: not a name, not a byte, not a time. Reading times are the mount's business.
    def tree():
        found = {}
        for path in sorted(world.installation.cache_root.rglob("*")):
            stat = path.lstat()
            found[str(path)] = (stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        return found

    before = tree()
    for name in ("acme", "globex", "nobody"):
        for target in list(targets(facts))[::3]:
            for method in ("GET", "HEAD", "PUT", "DELETE"):
                talk.request(method, target.path, headers=world.callers[name].headers)
    assert tree() == before
    assert len(before) > 100
