"""I3: a caller without rights on a resource cannot tell that it exists, by the answer or by its cost.

Three comparisons: the bytes of the answer, the commands that Redis saw, and the system calls on the cache. A
name that exists and is hidden is compared with one that does not exist.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager
from itertools import product
from urllib.parse import quote

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.redis_marks import GENERATION
from gateway.identity.links import load_link_keys
from gateway.model_metadata.links import Links

PUBLIC_URL = "https://models.example/gw"
WEIGHTS, STAT = "/models/v1/external/weights", "/models/v1/external/stat"

NOWHERE = {
    "a model": "/v1/models/nobody/nothing/0",
    "a model without a slash": "/v1/models/nobodys",
    "a package": "/v1/models/nobody/nothing/0/-/pkgA1",
    "a file": "/v1/models/nobody/nothing/0/-/pkgA1/weights.onnx",
    "a blob": "/v1/blobs/0123456789abcdef0123456789abcdef",
}

# For each caller: resources that exist, and that it must not be able to tell from those above.
HIDDEN = {
    "globex": (
        "/v1/models/acme/cars/1",
        "/v1/models/acme/cars/1/-/pkgA1",
        "/v1/models/acme/cars/1/-/pkgNone",
        "/v1/models/acme/cars/1/-/pkgA1/weights.onnx",
        "/v1/models/acme/cars/1/-/pkgA1/none.bin",
        "/v1/models/acme/open/secret/-/pkgO1/weights.onnx",
        "/v1/models/acme/odd/1/-/pkgB1/bad.bin",
        "/v1/models/orphan/model/1",
        "/v1/models/orphan/model/1/-/pkgX1/weights.onnx",
        "/v1/models/acme-cars",
        "/v1/models/acme-cars/-/pkgA1/weights.onnx",
        "/v1/models/public/latest/-/pkgO1/weights.onnx",
        "/v1/models/acme/gone",
    ),
    "hooli": (
        "/v1/models/globex/cars/1/-/pkgA1/weights.onnx",
        "/v1/models/globex/best",
        "/v1/models/globex/best/-/pkgT1/weights.onnx",
        "/v1/models/globex/wide/1/-/pkgW1",
    ),
    "acme": (
        "/v1/models/globex/cars/1",
        "/v1/models/globex/wide/1/-/pkgW2",
        "/v1/models/globex/wide/1/-/pkgW2/weights.onnx",
        "/v1/models/globex/infer/1",
        "/v1/models/globex/infer/1/-/pkgI1/weights.onnx",
        "/v1/models/globex/best/-/pkgT1/weights.onnx",
        # What it may discover, and what does not exist or is damaged: the same answer again.
        "/v1/models/acme/odd/1/-/pkgB1/bad.bin",
        "/v1/models/acme/cars/1/-/pkgNone",
        "/v1/models/acme/cars/1/-/pkgA1/none.bin",
        "/v1/models/acme/gone/1",
        "/v1/models/globex/lab/1/-/pkgL1/none.bin",
    ),
    "acme infers only": ("/v1/models/acme/cars/1", "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"),
    "acme audits only": ("/v1/models/acme/cars/1", "/v1/models/public/demo/1/-/pkgD1/weights.onnx"),
    "acme discovers only": (
        "/v1/models/globex/cars/1/-/pkgA1/weights.onnx",
        "/v1/models/acme/cars/1/-/pkgA1/none.bin",
    ),
    "admin": ("/v1/models/acme/cars/1", "/v1/models/public/demo/1/-/pkgD1/weights.onnx"),
}
HIDDEN_BLOBS = {
    "globex": ("hidden", "orphaned"),
    "hooli": ("hidden", "orphaned"),
    "acme": ("orphaned",),
    "acme infers only": ("shared", "orphaned"),
    "acme discovers only": ("shared", "orphaned"),
    "admin": ("shared", "orphaned"),
}

PROBING_HEADERS = (
    (),
    (("Range", "bytes=0-0"),),
    (("Range", "bytes=99999999-"),),
    (("Range", "lines=1-2"),),
    (("Range", "bytes=0-0"), ("If-Range", '"x"')),
    (("If-None-Match", "*"),),
    (("If-None-Match", '"x"'),),
    (("If-Match", "*"),),
    (("If-Match", '"x"'),),
    (("If-Modified-Since", "Thu, 01 Jan 2037 00:00:00 GMT"),),
    (("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),),
    (("Accept", "text/html"), ("Accept-Encoding", "gzip")),
)


@pytest.fixture(scope="module")
def world(build_world):
    """The world with the engine's faces, which answer from the cache: no provider is asked."""
    yield from build_world(
        "existence",
        workers=2,
        CACHEGATE_SCAN_SECONDS="3600",
        CACHEGATE_PIN_IN_BACKGROUND="off",
        CACHEGATE_PUBLIC_URL=PUBLIC_URL,
    )


def hidden_paths(name, facts):
    blobs = {"hidden": facts.hidden, "orphaned": facts.orphaned, "shared": facts.shared}
    return (
        *HIDDEN[name],
        *(f"/v1/blobs/{facts.digest_of(blobs[blob])}" for blob in HIDDEN_BLOBS.get(name, ())),
    )


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_hidden_answers_as_what_is_nowhere_whatever_headers_ask(name, world, facts, talk):
    answers = Counter()
    for path, headers in product((*hidden_paths(name, facts), *NOWHERE.values()), PROBING_HEADERS):
        answer = talk.get(path, headers=(*world.callers[name].headers, *headers))
        assert answer.status == 404, path
        answers[answer.comparable()] += 1
    assert len(answers) == 1


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_hidden_answers_head_as_what_is_nowhere(name, world, facts, talk):
    answers = Counter()
    for path, headers in product((*hidden_paths(name, facts), *NOWHERE.values()), PROBING_HEADERS[::4]):
        answer = talk.request("HEAD", path, headers=(*world.callers[name].headers, *headers))
        assert answer.status == 404, path
        assert answer.body == b""
        answers[answer.comparable()] += 1
    assert len(answers) == 1


def test_nothing_of_a_refused_request_comes_back(world, talk):
    mark = "echo-7f3a91"
    for path, headers in (
        (f"/v1/models/{mark}/x", ()),
        (f"/v1/models/{mark}/x/-/pkg{mark[5:]}", (("User-Agent", mark), ("Referer", mark), ("Origin", mark))),
        (f"/v1/blobs/{mark}", (("X-Request-Id", mark), ("Cookie", mark))),
        (f"/v1/models/../{mark}", ()),
        (f"/{mark}?{mark}={mark}", (("tracestate", mark), ("baggage", mark))),
    ):
        answer = talk.get(path, world.token("globex"), headers=headers)
        assert answer.status in (400, 404)
        assert mark.encode() not in answer.body
        assert mark not in repr(answer.headers)


# --- the cost in Redis commands

SAME_WORK = {
    # A hidden resource and one that does not exist, with as many segments, for one caller each.
    "a model": ("globex", "/v1/models/acme/cars/1", "/v1/models/nobody/cars/1"),
    "a package": ("globex", "/v1/models/acme/cars/1/-/pkgA1", "/v1/models/nobody/cars/1/-/pkgA1"),
    "a file": ("globex", "/v1/models/acme/cars/1/-/pkgA1/a.bin", "/v1/models/nobody/cars/1/-/pkgA1/a.bin"),
    "an ownerless model": ("globex", "/v1/models/orphan/model/1", "/v1/models/nobody/model/1"),
    "an alias": ("globex", "/v1/models/acme-cars", "/v1/models/nobodys"),
    "an alias, by file": (
        "globex",
        "/v1/models/acme-cars/-/pkgA1/weights.onnx",
        "/v1/models/nobodys/-/pkgA1/weights.onnx",
    ),
    "an alias in a published prefix": ("globex", "/v1/models/public/latest", "/v1/models/nobody/latest"),
    "an alias of another tenant": ("hooli", "/v1/models/globex/best", "/v1/models/nobody/best"),
    "for a key without scopes": ("acme audits only", "/v1/models/acme/cars/1", "/v1/models/nobody/cars/1"),
    "for an admin": ("admin", "/v1/models/acme/cars/1", "/v1/models/nobody/cars/1"),
}


@pytest.fixture
def commands_of(world, talk, eventually):
    """The sequence of Redis commands while one request is answered: the most frequent of several tries.

    Each try begins with an empty memory: a remembered decision would need no command. Both workers check the
    policy every second as well. A request is short, so in most of a few tries it is seen alone, and the most
    frequent sequence is that of the request itself. What workers ask at times of their own is left out: the
    renewals of leases, and all that is read of the generation's hash, as at each connection of the feed. A
    request reads facts.
    """
    client = world.installation.redis()

    def feeds():
        listed = client.client_list()
        return {one["id"] for one in listed if one["name"] == "cachegate-feed"}

    def forget_everything():
        known = feeds()
        for feed in known:
            client.client_kill_filter(_id=feed)
        eventually(lambda: len(feeds() - known) == len(known) > 0)
        eventually(world.gateway.is_ready)

    with client.monitor() as monitor:

        def observe(path, headers):
            seen = Counter()
            for attempt in range(5):
                forget_everything()
                mark = f"{path} {attempt} {id(seen)}"
                client.echo(f"begin {mark}")
                answer = talk.get(path, headers=headers)
                client.echo(f"end {mark}")
                assert answer.status == 404
                seen[tuple(_between(monitor, f"ECHO begin {mark}", f"ECHO end {mark}"))] += 1
            return seen.most_common(1)[0][0]

        yield observe
    client.close()


def _between(monitor, begin, end):
    is_begun = False
    while (command := monitor.next_command()["command"]) != end:
        word, *names = command.split()
        if is_begun and word in {"HGET", "MGET"} and names[0] != GENERATION.decode():  # how facts are read
            yield word
        is_begun = is_begun or command == begin


@pytest.mark.parametrize("what", SAME_WORK)
def test_redis_is_asked_the_same_for_a_hidden_name_as_for_one_that_is_nowhere(what, world, commands_of):
    name, hidden, nowhere = SAME_WORK[what]
    headers = world.callers[name].headers
    seen = commands_of(hidden, headers)
    assert "MGET" in seen
    assert seen == commands_of(nowhere, headers)


def test_redis_is_asked_the_same_for_a_hidden_blob_as_for_one_that_is_nowhere(world, facts, commands_of):
    headers = world.callers["hooli"].headers
    seen = commands_of(f"/v1/blobs/{facts.digest_of(facts.hidden)}", headers)
    assert "MGET" in seen
    assert seen == commands_of(NOWHERE["a blob"], headers)


# --- the engine's faces

ENGINE_SAME_WORK = {
    # As above, by model; of a link, its file as well.
    "a model of others": ("globex", "acme/cars/1", "nobody/cars/1"),
    "an ownerless model": ("globex", "orphan/model/1", "nobody/model/1"),
    "an alias": ("globex", "acme-cars", "nobodys"),
    "an alias of another tenant": ("hooli", "globex/best", "nobody/best"),
    "for a key that may only run models": ("acme infers only", "acme/cars/1", "nobody/cars/1"),
}


def _metadata(path, model):
    return f"{path}?modelId={quote(model, safe='')}"


def engine_target(face, world, name, model):
    """What is asked for, and the headers to ask with: a link has its key in it."""
    caller = world.callers[name]
    if face == "weights, wrapped":
        return f"/proxy?url={quote(PUBLIC_URL + _metadata(WEIGHTS, model), safe='')}", caller.headers
    if face in {"weights", "stat"}:
        return _metadata(WEIGHTS if face == "weights" else STAT, model), caller.headers
    keys = load_link_keys(world.installation.state / "signing" / "links.key")
    links = Links(public_url=PUBLIC_URL, keys=keys, link_seconds=600, clock=SystemClock())
    url = links.url(caller.key_id, model, "pkgA1", "weights.onnx")
    if face == "a link, wrapped":
        return f"/proxy?url={quote(url, safe='')}", ()
    return url.removeprefix(PUBLIC_URL), ()


ENGINE_FACES = ("weights", "stat", "weights, wrapped", "a link", "a link, wrapped")


@pytest.mark.parametrize("face", ENGINE_FACES)
def test_the_engines_faces_answer_whoever_may_have_it(face, world, talk):
    # The control: these queries are valid, and only the right is missing in the next tests.
    path, headers = engine_target(face, world, "acme", "acme/cars/1")
    assert talk.get(path, headers=headers).status == 200


@pytest.mark.parametrize("face", ENGINE_FACES)
@pytest.mark.parametrize("what", ENGINE_SAME_WORK)
def test_the_engines_faces_answer_the_same_for_what_is_hidden_as_for_what_is_nowhere(what, face, world, talk):
    name, *models = ENGINE_SAME_WORK[what]
    answers = set()
    for model in models:
        path, headers = engine_target(face, world, name, model)
        for method in ("GET", "HEAD"):
            answer = talk.request(method, path, headers=headers)
            assert answer.status == 404, path
            answers.add((method, repr(answer.comparable())))
    assert len(answers) == 2


@pytest.mark.parametrize("face", ENGINE_FACES)
@pytest.mark.parametrize("what", ["a model of others", "an alias"])
def test_redis_is_asked_the_same_by_the_engines_faces(what, face, world, commands_of):
    name, *models = ENGINE_SAME_WORK[what]
    commands_of(*engine_target(face, world, name, "nobody/first"))  # the key of a first link is looked for
    hidden, nowhere = (commands_of(*engine_target(face, world, name, model)) for model in models)
    assert "MGET" in hidden
    assert hidden == nowhere


# --- the cost in system calls on the disk


@contextmanager
def traced(pids, log):
    """All system calls that name a file, of these processes and their threads, into `log`."""
    command = ["strace", "-f", "-qq", "-e", "trace=%file,getdents64", "-o", str(log)]
    command += [part for pid in pids for part in ("-p", str(pid))]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield tracer
    finally:
        tracer.terminate()
        tracer.communicate(timeout=10)


@pytest.fixture
def disk_calls(world, talk, tmp_path, eventually):
    """How many system calls a request makes that name a model's place below the cache."""
    assert shutil.which("strace"), "install it: apt-get install strace"

    def observe(path, headers, status):
        log = tmp_path / "calls"
        log.unlink(missing_ok=True)
        with traced(world.gateway.worker_pids(), log) as tracer:
            # The audit segment is checked for each record: once seen, tracing has begun.
            def has_begun():
                assert tracer.poll() is None, f"processes cannot be traced here: {tracer.stderr.read()}"
                talk.get("/v1/whoami", headers=headers)
                return log.exists() and "/audit/" in log.read_text()

            eventually(has_begun)
            before = len(log.read_text().splitlines())
            assert talk.get(path, headers=headers).status == status
            eventually(lambda: "/audit/" in "\n".join(log.read_text().splitlines()[before:]))
        lines = log.read_text().splitlines()[before:]
        return [
            line for line in lines if any(mark in line for mark in ("models-cache", "shared-blobs", "v2-"))
        ]

    return observe


@pytest.mark.root
def test_the_disk_is_asked_for_what_a_caller_may_have(world, disk_calls):
    # The control: what the next tests search for is seen when it happens.
    headers = world.callers["acme"].headers
    assert disk_calls("/v1/models/acme/cars/1/-/pkgA1/weights.onnx", headers, 200)


@pytest.mark.root
@pytest.mark.parametrize("what", SAME_WORK)
def test_the_disk_is_asked_nothing_for_a_name_that_a_caller_may_not_know(what, world, disk_calls):
    name, hidden, nowhere = SAME_WORK[what]
    headers = world.callers[name].headers
    assert disk_calls(hidden, headers, 404) == []
    assert disk_calls(nowhere, headers, 404) == []


@pytest.mark.root
def test_a_hidden_blob_makes_the_disk_work_as_one_that_is_nowhere(world, facts, disk_calls):
    # The caller's own packages are searched in memory either way. Only one that lists the blob is opened.
    headers = world.callers["hooli"].headers
    for path in (f"/v1/blobs/{facts.digest_of(facts.hidden)}", NOWHERE["a blob"]):
        assert disk_calls(path, headers, 404) == []
    assert disk_calls(f"/v1/blobs/{facts.digest_of(facts.shared)}", headers, 200)


@pytest.mark.root
@pytest.mark.parametrize("face", ENGINE_FACES)
def test_the_disk_is_asked_nothing_by_the_engines_faces_for_what_a_caller_may_not_know(
    face, world, disk_calls
):
    for model in ("acme/cars/1", "nobody/cars/1"):
        assert disk_calls(*engine_target(face, world, "globex", model), 404) == []
    assert face == "stat" or disk_calls(*engine_target(face, world, "acme", "acme/cars/1"), 200)
