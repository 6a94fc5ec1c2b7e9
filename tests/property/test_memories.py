"""The caches of a worker hold no more memory than their bounds, whatever they are filled with.

Each cache is filled, twice over, with the worst values that the syntax of names, requests, records
and answers permits; then the interpreter's allocations since then are measured. A cache that charges less
than it holds fails here, and so does one that is not listed.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import json
import re
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

import gateway
from gateway.audit.record_body import _permitted, _who
from gateway.audit.record_fields import _of_client, _of_file, _of_plain_client
from gateway.audit.refusal_limiter import AnonymousCaller, RefusalLimiter
from gateway.audit.request_secrets import RequestSecrets, _names_a_secret
from gateway.audit.scrub import _clean_agent, clean_agent, longest_run, source_of
from gateway.caller_views import CallerViews, View
from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.credential.client import Peer, TrustedNetworks, _find_client, peer_of
from gateway.decision import rulebook
from gateway.decision.policyset import load_policy_folder
from gateway.decision.rulebook import Rulebook
from gateway.decisions import Decisions, Judgement, question_of
from gateway.delivery.file_answer import describe_whole
from gateway.directory.memory.lease import Lease
from gateway.directory.memory.near_cache import NearCache
from gateway.directory.memory.near_facts import NearFacts
from gateway.directory.reading.reader import DirectoryReader
from gateway.directory.records import names
from gateway.directory.records.codec import (
    decode_alias,
    decode_grants,
    decode_key,
    decode_rule,
    encode,
    encode_key,
)
from gateway.directory.records.fact_sizes import held_bytes
from gateway.directory.records.policies import encode_policy
from gateway.engine.answers import MAX_FILES, METADATA_TYPE, PACKAGE_TYPE, parse_answer
from gateway.engine.questions import WeightsQuery
from gateway.faces.check import _is_address, _is_known_address
from gateway.front_door import dependencies
from gateway.front_door.workflows import blocks, describer, saved
from gateway.front_door.workflows.workload import StepWork, Workload
from gateway.identity import authenticate
from gateway.identity import last_uses as last_uses_module
from gateway.identity.authenticate import Authenticator
from gateway.identity.keys_by_id import KeysById
from gateway.identity.last_uses import LastUses
from gateway.identity.pepper import Pepper, Peppers
from gateway.identity.recent_callers import Caller, RecentCallers
from gateway.model.access import (
    Access,
    Action,
    Credential,
    Page,
    Principal,
    Resource,
    ResourceKind,
)
from gateway.model.addresses import _remembered_address
from gateway.model.errors import Reason
from gateway.model.facts import (
    Alias,
    Grant,
    Grants,
    Key,
    KeyKind,
    ModelRule,
    PolicySet,
    Scope,
    Standing,
    Tenant,
    Visibility,
)
from gateway.model.listings import FileEntry, PackageListing
from gateway.model.names import MAX_NAME_BYTES, ancestors, parse_file_handle, parse_model_id
from gateway.model.pins import Measured
from gateway.model.stamps import Leaf, Stamp
from gateway.model.stores import Moment
from gateway.model.verdicts import Admission, Allowed, Denied, HeldFile
from gateway.model_metadata import attestations, caller_metadata, link_effects, local_metadata
from gateway.model_metadata.attestations import Attestations
from gateway.model_metadata.link_effects import Minting
from gateway.model_metadata.local_metadata import LocalMetadata
from gateway.model_metadata.sources import Metadata
from gateway.pinning.measuring import Measurer
from gateway.platform import upstream
from gateway.platform.inquiry import ProviderRequest
from gateway.platform.upstream import Upstream
from gateway.resource.held_files import HeldFiles, KeptFile
from gateway.resource.held_listings import ENTRY_BYTES, HeldListing, HeldListings
from gateway.resource.paths import MAX_REMEMBERED_BYTES, MODELS_PATH, _parse_remembered, locate
from gateway.resource.raw_model import RawPackage, RawPackages
from tests import samples

FACTOR = 1.3
"""By how much a memory may weigh more than its bound: what it charges is an estimate."""

MEGABYTE = 1 << 20
SPARE = 256 * 1024  # for what a memory is beside its entries
NOW = 1_800_000_000.0

# The longest names there are. One character beyond the basic plane makes each of a text four bytes wide.


def model_id(number):
    """As many segments and bytes as one may have, each time another, and as wide as text can be."""
    head = f"{number:08x}\U0001d11e"
    text = "/".join([head, *["a" * 30] * 14, "b" * 65])
    text = text[: len(text) - (len(text.encode()) - MAX_NAME_BYTES)]
    assert len(text.encode()) == MAX_NAME_BYTES
    return parse_model_id(text)


def handle(number):
    return parse_file_handle("/".join([f"{number:08x}", *["a" * 30] * 14, "b" * 60])[:MAX_NAME_BYTES])


def package(number):
    return f"{number:08d}" + "p" * 247


def leaves_about(number, value=None):
    """The records that a decision about a model stands on, and about the one that it is another name of."""
    about = [model_id(2 * number), model_id(2 * number + 1)]
    wanted = [names.alias_fact(one) for one in about]
    wanted += [names.rule_fact(pattern) for one in about for pattern in ancestors(one)]
    return tuple(Leaf(name, value) for name in wanted)


def principal(number=0, **changes):
    fields = {
        "kind": KeyKind.TENANT,
        "key_id": f"key_{number:012d}",
        "key_name": "\U0001d11e" * 100,
        "tenant": f"tenant-{number:057d}",
        "scopes": frozenset({Scope.READ, Scope.DISCOVER}),
        "expires_at": NOW + number,
    }
    return Principal(**{**fields, **changes})


def access(number, kind=ResourceKind.PACKAGE):
    resource = Resource(
        kind=kind,
        model=model_id(2 * number),
        package=package(number),
        file=handle(number) if kind is ResourceKind.FILE else None,
    )
    return Access(principal=principal(number), action=Action.READ, resource=resource)


def standing():
    return Standing(owner="tenant", visibility=Visibility.PRIVATE, groups=frozenset())


def judgement(number, *, is_allowed, leaves=None):
    asked, stamp = access(number), Stamp(number, leaves or leaves_about(number))
    facts = SimpleNamespace(
        grants=(),
        requested=asked.resource.model,
        model=model_id(2 * number + 1),
        requested_standing=standing(),
        model_standing=standing(),
        policy=POLICY,
        stamp=stamp,
        unreadable=(),
        ruling=None,
        is_confirmed=True,
    )
    if is_allowed:
        grant = ",".join(f"grt_{number:08d}{one:04d}" for one in range(20))
        return asked, Judgement(
            Allowed(access=asked, model=facts.model, policies=("p",), grant=grant, stamp=stamp), facts
        )
    reason = Reason.NOT_PERMITTED
    return asked, Judgement(Denied(access=asked, reason=reason, model=facts.model, stamp=stamp), facts)


POLICY = PolicySet(schema="", policies=(), digest="d")


def allowed(number, leaves=None):
    asked = access(number, ResourceKind.FILE)
    stamp = Stamp(number, leaves or leaves_about(number))
    return Allowed(access=asked, model=model_id(2 * number + 1), policies=("p",), grant="owner", stamp=stamp)


def held_file(number, size):
    return HeldFile(
        descriptor=-1,
        size=size,
        identity=(1, number + (1 << 40), size, NOW * 10**9 + number, NOW * 10**9 + number),
        model=model_id(2 * number + 1),
        package=package(number),
        handle=handle(number),
        md5=f"{number:032x}",
        sha256=f"{number:064x}",
        content=bytes(size),
        headers=describe_whole(size, f"{number:064x}", is_blob=True),
    )


def admission(number, *, size=64, agent=b"", leaves=None, file=None):
    what = allowed(number, leaves)
    request = samples.wire_request(
        raw_path=b"/v1/models/%08d" % number + b"%61" * 800,
        headers=((b"user-agent", b"%08d" % number + agent), (b"host", b"x")),
        client=f"2001:db8:{number:x}:1111:2222:3333:4444:5555"[:39],
        route="/v1/models/{model}/-/{package}/{file}",
        received_at=NOW,
    )
    stamp = Stamp(number, leaves or (*what.stamp.leaves, Leaf(b"%d" % number, b"v" * 100)))
    found = file or held_file(number, size)
    return Admission(request=request, allowed=what, found=found, stamp=stamp, key_stamp=Stamp(1, ()))


# What is filled. A `Case` makes a memory of a stated bound, and puts its n-th worst value there.


@dataclass(frozen=True)
class Case:
    """One memory: how it is made, how one more is put there, and what it may weigh."""

    make: object
    put: object
    bound: int
    size: object = len  # how many values are in it
    least: int = 20  # values that are put at least
    sets: tuple = ()  # constants that are made smaller, so that it is sooner full: module, name, value


CASES: dict[str, Case] = {}


def case(bound, **options):
    def listed(maker):
        CASES[maker.__name__] = Case(*maker(bound), bound, **options)
        return maker

    return listed


def near(bound, raw_and_fact):
    def put(cache, number):
        name, raw, decode = raw_and_fact(number)
        leaf = Leaf(name, raw)
        cache._put(leaf)
        if raw is not None:
            fact = decode(raw)
            leaf.keep(fact, held_bytes(fact, raw))

    return lambda: NearCache(max_entries=1 << 30, max_bytes=bound), put


@case(4 * MEGABYTE)
def absent_records(bound):
    return near(bound, lambda number: (names.alias_fact(model_id(number)), None, None))


@case(4 * MEGABYTE)
def rules_with_many_groups(bound):
    def rule(number):
        pattern = model_id(number)
        groups = tuple(f"g{number % 1000}{one}" for one in range(200))
        raw = encode(ModelRule(pattern=pattern, owner="acme", groups=groups))
        return names.rule_fact(pattern), raw, lambda raw: decode_rule(raw, pattern)

    return near(bound, rule)


@case(2 * MEGABYTE)
def rules_and_aliases_of_wide_names(bound):
    def record(number):
        one, other = model_id(number), model_id(number + (1 << 20))
        if number % 2:
            raw = encode(Alias(alias=one, canonical=other))
            return names.alias_fact(one), raw, lambda raw: decode_alias(raw, one)
        raw = encode(ModelRule(pattern=one, owner="acme"))
        return names.rule_fact(one), raw, lambda raw: decode_rule(raw, one)

    return near(bound, record)


@case(2 * MEGABYTE)
def records_of_many_small_grants(bound):
    def grants(number):
        tenant = f"t{number}"
        each = [
            Grant(grant_id=f"g{number}{one}", actions=frozenset({"read"}), models=(f"a{one % 97}",))
            for one in range(400)
        ]
        raw = encode(Grants(tenant_id=tenant, grants=tuple(each)))
        return names.grants_fact(tenant), raw, lambda raw: decode_grants(raw, tenant)

    return near(bound, grants)


@case(2 * MEGABYTE)
def records_of_grants_with_wide_patterns(bound):
    def grants(number):
        tenant = f"t{number}"
        each = [
            Grant(grant_id="g", actions=frozenset({"read"}), models=(model_id(number * 100 + one),))
            for one in range(40)
        ]
        raw = encode(Grants(tenant_id=tenant, grants=tuple(each)))
        return names.grants_fact(tenant), raw, lambda raw: decode_grants(raw, tenant)

    return near(bound, grants)


def worst_key(number):
    return Key(
        key_id=f"key_{number:012d}",
        tenant="acme",
        name="\U0001d11e" * 100,
        scopes=frozenset({Scope.READ}),
        networks=tuple(f"2001:db8:{number:x}:{one:x}::/64" for one in range(64)),
        created_at=NOW,
        pepper_id="p1",
    )


def key_leaf(number):
    digest = number.to_bytes(32, "big")
    raw = encode_key(worst_key(number), digest)
    leaf, key = Leaf(names.key_fact(digest), raw), decode_key(raw, digest)
    leaf.keep(key, held_bytes(key, raw))
    return leaf, key


def decisions(bound, *, is_allowed, leaves=None):
    def put(made, number):
        asked, reached = judgement(number, is_allowed=is_allowed, leaves=leaves)
        made._remember(question_of(asked), reached)

    def make():
        return Decisions(directory=None, rules=None, max_entries=1 << 30, max_bytes=bound)

    return make, put


@case(4 * MEGABYTE, size=lambda one: sum(map(len, one.memories)))
def denials(bound):
    return decisions(bound, is_allowed=False)


@case(4 * MEGABYTE, size=lambda one: sum(map(len, one.memories)))
def allows(bound):
    return decisions(bound, is_allowed=True)


@case(4 * MEGABYTE, size=lambda one: sum(map(len, one.memories)))
def allows_that_stand_on_the_same(bound):
    return decisions(bound, is_allowed=True, leaves=(Leaf(b"shared", b"v"),))


@case(MEGABYTE)
def recent_callers(bound):
    def put(made, number):
        leaf, key = key_leaf(number)
        tenant = Tenant(tenant_id="acme", name="A", is_suspended=False, created_at=NOW)
        stamp = Stamp(1, (leaf, Leaf(names.key_fact((number + 1).to_bytes(32, "little")), None)))
        made.put(number.to_bytes(32, "big"), Caller(key, tenant, principal(number), stamp))

    return lambda: RecentCallers(max_bytes=bound), put


@case(MEGABYTE)
def recent_callers_with_outside_tokens(bound):
    shared = Leaf(b"issuer", b"v"), Leaf(b"keys", b"v")

    def put(made, number):
        leaf, key = key_leaf(number)
        tenant = Tenant(tenant_id="acme", name="A", is_suspended=False, created_at=NOW)
        who = principal(number, issuer="https://ci.example")
        key = replace(key, expires_at=NOW + number)
        made.put(number.to_bytes(32, "big"), Caller(key, tenant, who, Stamp(1, (leaf, *shared))))

    return lambda: RecentCallers(max_bytes=bound), put


@case(
    2 * MEGABYTE,
    size=lambda made: len(made._networks),
    sets=[(authenticate, "NETWORKS_BYTES", 2 * MEGABYTE)],
)
def networks_of_keys(_bound):
    def put(made, number):
        made._is_inside("2001:db8::1", worst_key(number))

    peppers = Peppers(current=Pepper(id="p1", secret=b"1" * 32))
    return lambda: Authenticator(None, peppers), put


def holding(bound, size):
    def put(made, number):
        file = held_file(number, size)
        place = f"/{'r' * 1000}/models-cache/{'d' * 90}/{file.package}"
        looks = tuple(
            (f"{place}/{name}", True, tuple(one + number + (1 << 40) for one in range(5)))
            for name in (file.handle, "", file.md5, "model_config.json")
        )
        made._put(KeptFile(file, (Leaf(names.pin_fact(file.md5), b"p" * 100),), looks, NOW))

    def make():
        return HeldFiles(root=Path("/"), catalogue=None, clock=None, describe=None, max_bytes=bound)

    return make, put


@case(4 * MEGABYTE, size=lambda made: len(made._held))
def held_files(bound):
    return holding(bound, 10)


@case(4 * MEGABYTE, size=lambda made: len(made._held))
def held_files_with_content(bound):
    return holding(bound, 64 * 1024)


@case(4 * MEGABYTE, size=lambda made: len(made.memory))
def held_listings(bound):
    def put(made, number):
        folder = f"/{'r' * 1000}/models-cache/{'d' * 90}/{package(number)}"
        files = tuple(
            FileEntry(handle=f"{handle(number)}{one}", size=number + (1 << 40), md5=f"{number:031x}{one}")
            for one in range(8)
        )
        checks = tuple(
            (f"{folder}/{one.handle}", True, tuple(one.size + each for each in range(5))) for one in files
        )
        listing = PackageListing(model=model_id(number), package=package(number), files=files)
        page = Page(after=f"{handle(number)}", limit=100)
        made.memory.put((listing.model, listing.package, page), HeldListing(listing, 8, checks, NOW))

    return lambda: HeldListings(root=Path("/"), clock=None, max_bytes=bound), put


@case(4 * MEGABYTE, size=lambda made: len(made.memory))
def held_manifests(bound):
    def put(made, number):
        folder = f"/{'r' * 1000}/models-cache/{'d' * 90}/{package(number)}"
        handles = [f"{handle(number)}{one}" for one in range(8)]
        checks = tuple(
            (f"{folder}/{one}", True, tuple(number + each for each in range(5))) for one in handles
        )
        raw = RawPackage(
            package=package(number),
            raw_manifest=b"%d" % number * 600,
            servable=frozenset(handles),
            unhashed=frozenset(),
        )
        found = RawPackages(packages=(raw,), left_out=0)
        entries = len(handles) + len(raw.raw_manifest) // ENTRY_BYTES + 1
        made.memory.put((model_id(number), RawPackages), HeldListing(found, entries, checks, NOW))

    return lambda: HeldListings(root=Path("/"), clock=None, max_bytes=bound), put


@case(
    2 * MEGABYTE,
    size=lambda made: len(made.memory),
    sets=[(link_effects, "REMEMBERED_BYTES", 2 * MEGABYTE)],
)
def files_that_were_begun(_bound):
    def make():
        return Minting(
            catalogue=None,
            pins=None,
            clock=None,
            link_seconds=1,
            note_links=None,
            on_failure=None,
            on_items_failed=None,
        )

    def put(made, number):
        made.memory.put((model_id(number), (package(number), handle(number))), True)

    return make, put


@case(
    8 * MEGABYTE,
    size=lambda made: len(made.memory),
    sets=[(attestations, "REMEMBERED_BYTES", 8 * MEGABYTE)],
)
def links_that_count(_bound):
    listed = ()

    def make():
        catalogue = SimpleNamespace(listed=lambda: listed)
        return Attestations(
            directory=None, source=None, catalogue=catalogue, perform=None, clock=None, actor="w"
        )

    def put(made, number):
        leaves = tuple(leaf for one in range(50) for leaf in leaves_about(50 * number + one))
        made.memory.put((model_id(number), f"{number:032x}"), (made._scan_of(listed), leaves))

    return make, put


def answer(number, *, files, fields, url):
    """A page of metadata with as many small parts as there may be."""
    each = [
        {
            "fileHandle": f"f{one}",
            "downloadUrl": f"{number}" + "u" * url,
            "md5Hash": f"{number:032x}",
            **{f"{number}{field}": 0 for field in range(fields)},
        }
        for one in range(files)
    ]
    offered = {"type": PACKAGE_TYPE, "packageId": "p", "packageManifest": {}, "packageFiles": each}
    head = {"type": METADATA_TYPE, "modelId": "a", "modelArchitecture": "r", "modelPackages": [offered]}
    return json.dumps({"modelMetadata": head}, separators=(",", ":")).encode()


def words(make_body):
    class Provider:
        async def ask(self, path, query, headers):
            return SimpleNamespace(status=200, body=make_body(len(query) + next(self.serial)))

        serial = itertools.count()

    def parse(body):
        return parse_answer(body), None

    def make():
        clock = SimpleNamespace(monotonic=lambda: NOW)
        return Upstream(
            provider=Provider(), decisions=None, authority=None, clock=clock, remembered_seconds=60.0
        )

    def put(made, number):
        what = allowed(number)
        who = replace(what.access.principal, is_of_platform=True)
        inquiry = ProviderRequest(
            request=replace(admission(number).request, headers=((b"user-agent", b"a" * 1000),)),
            allowed=replace(what, access=replace(what.access, principal=who)),
            question=WeightsQuery(
                model=model_id(number), extra=tuple(("x" * 60, "y" * 200) for _ in range(31))
            ),
            credential=Credential("key"),
        )
        asyncio.run(made.reply_to("/models/v1/external/weights", inquiry, parse))

    return make, put


WORDS = {
    "size": lambda made: len(made.memory),
    "sets": [(upstream, "REMEMBERED_BYTES", 8 * MEGABYTE)],
    "least": 8,
}


@case(8 * MEGABYTE, **WORDS)
def answers_of_the_provider_with_many_fields(_bound):
    return words(lambda number: answer(number, files=50, fields=200, url=10))


@case(8 * MEGABYTE, **WORDS)
def answers_of_the_provider_with_many_files(_bound):
    return words(lambda number: answer(number, files=MAX_FILES // 4, fields=0, url=400))


@case(
    4 * MEGABYTE,
    size=lambda made: len(made.memory),
    sets=[(local_metadata, "REMEMBERED_BYTES", 4 * MEGABYTE)],
)
def answers_made_of_the_cache(_bound):
    def put(made, number):
        raw = answer(number, files=50, fields=40, url=10)
        one = RawPackage(
            package=package(number), raw_manifest=bytes(bytearray(raw)), servable=frozenset(),
            unhashed=frozenset(),
        )  # fmt: skip
        packages = RawPackages(packages=(one,), left_out=0)
        identity = tuple(number + each for each in range(5))
        made.memory.put(model_id(number), local_metadata._Made(parse_answer(raw), packages, identity))

    return lambda: LocalMetadata(None, on_damaged=None, on_left_out=None), put


@case(
    4 * MEGABYTE,
    size=lambda made: len(made.memory),
    sets=[(caller_metadata, "REMEMBERED_BYTES", 4 * MEGABYTE)],
)
def answers_with_links(_bound):
    def make():
        around = dict.fromkeys(
            ("metadata", "decisions", "catalogue", "origins", "sealed", "links", "minting", "attestations")
        )
        return caller_metadata.Offers(**around, public_url="", is_relaying=False)

    def put(made, number):
        raw = answer(number, files=50, fields=40, url=10)
        stamp = Stamp(number, leaves_about(number))
        given = caller_metadata._Given(bytes(bytearray(raw)), parse_answer(raw), stamp, number)
        made.memory.put((principal(number), b"%08d" % number * 60, False), given)

    return make, put


@case(
    4 * MEGABYTE, size=lambda made: len(made.memory), sets=[(dependencies, "REMEMBERED_BYTES", 4 * MEGABYTE)]
)
def models_that_models_bring(_bound):
    def put(made, number):
        place = hashlib.sha256(b"%d" % number).digest(), model_id(number)
        models = tuple(model_id(number * 1000 + one) for one in range(number % 3))
        made.memory.put(place, dependencies._Remembered(models, NOW))

    return lambda: dependencies.Dependencies(None, SimpleNamespace(monotonic=lambda: 0.0)), put


@case(4 * MEGABYTE, size=lambda made: len(made.memory), sets=[(describer, "REMEMBERED_BYTES", 4 * MEGABYTE)])
def what_workflows_do(_bound):
    def put(made, number):
        steps = tuple(
            StepWork(
                name=f"step_{number}_{one}",
                block_type=f"roboflow_core/block_{number}_{one}@v1",
                models=(f"model-{number}/{one}",),
                projects=(),
                operations=frozenset({f"operation_{number}_{one}"}),
            )
            for one in range(number % 20)
        )
        made.memory.put((f"http://{number}:9001", f"{number:032x}", b"%032d" % number), Workload(steps=steps))

    clock = SimpleNamespace(monotonic=lambda: 0.0)
    return lambda: describer.Describer(None, clock, None, "1.8.3"), put


@case(4 * MEGABYTE, size=lambda made: len(made.memory), sets=[(saved, "REMEMBERED_BYTES", 4 * MEGABYTE)])
def saved_workflows(_bound):
    def put(made, number):
        place = hashlib.sha256(b"%d" % number).digest(), saved.read_reference("acme", f"w{number:060d}", None)
        made.memory.put(place, saved._Remembered(f"{number:0900d}", f"{number:020d}", NOW))

    return lambda: saved.Saved(None, SimpleNamespace(monotonic=lambda: 0.0)), put


@case(4 * MEGABYTE, size=lambda made: len(made.memory), sets=[(blocks, "REMEMBERED_BYTES", 4 * MEGABYTE)])
def descriptions_of_blocks(_bound):
    def put(made, number):
        place = f"http://{number}:9001", f"{number:032x}", "/workflows/blocks/describe"
        made.memory.put(place, b"%0900d" % number)

    return blocks.BlockAnswers, put


@case(
    16 * MEGABYTE,
    size=lambda made: len(made.memory),
    sets=[(rulebook, "GRANT_INDEXES_BYTES", 16 * MEGABYTE)],
)
def arranged_grants(_bound):
    def put(made, number):
        grants = tuple(
            Grant(
                grant_id=f"g{number}{one}",
                actions=frozenset({"read"}),
                models=(model_id(number * 3000 + one),),
            )
            for one in range(1000)
        )
        made._index_of(principal(number), SimpleNamespace(grants=grants, ended=(), ahead=()))

    return Rulebook, put


@case(8 * MEGABYTE, size=lambda made: sum(map(len, made.memories)))
def views_of_callers(bound):
    models = tuple(model_id(number) for number in range(100))

    def make():
        catalogue = SimpleNamespace(models=lambda: models, listed=lambda: models)
        return CallerViews(directory=None, decisions=None, catalogue=catalogue, max_bytes=bound)

    def put(made, number):
        for views in (made._models, made._packages):
            leaves = tuple(leaf for one in range(20) for leaf in leaves_about(20 * number + one))
            views.memory.put(principal(number), View(models, models, 1, leaves))

    return make, put


# Those that are bounded by their entries alone: what an entry is at worst makes the bound.


def function(call, cached):
    """A remembering function: `call` makes it remember one more."""

    def make():
        cached.cache_clear()
        return cached

    return make, lambda _, number: call(number)


PROXY = TrustedNetworks(networks=(), is_unix_trusted=True)


@case(2 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def addresses_of_clients(_bound):
    def call(number):
        text = b"%08d" % number + b"x" * (30_000 if number % 2 else 60)
        Peer(None, PROXY).client([(b"x-forwarded-for", text)])

    return function(call, _remembered_address)


@case(2 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def peers_of_connections(_bound):
    return function(lambda number: peer_of(f"2001:db8:{number:x}:1:2222:3333:4444:5555", PROXY), peer_of)


@case(3 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def lists_of_proxies(_bound):
    def call(number):
        Peer(None, PROXY).client([(b"x-forwarded-for", b"%08d, " % number + b"x" * 240)])

    return function(call, _find_client)


@case(2 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def clients_that_proxies_tell(_bound):
    def call(number):
        _is_address(b"%08d" % number + b"x" * (30_000 if number % 2 else 56))

    return function(call, _is_known_address)


@case(3 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def plain_agents_of_clients(_bound):
    def call(number):
        client = f"2001:db8:{number:x}:1:2222:3333:4444:5555"
        _of_plain_client("GET", "/v1/{file}", client, b"%0200d" % number)

    return function(call, _of_plain_client)


@case(2 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def agents_of_clients(_bound):
    return function(lambda number: clean_agent(b"%08d" % number + b" " * 30_000), _clean_agent)


@case(3 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def runs_in_agents_of_clients(_bound):
    secrets = RequestSecrets(((b"authorization", b"Bearer " + b"k" * 40),), b"")
    return function(lambda number: clean_agent(b"%08d" % number + b" " * 30_000, secrets), longest_run)


@case(2 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def sources_of_clients(_bound):
    return function(lambda number: source_of(f"2001:db8:{number:x}:1:2222:3333:4444:5555"), source_of)


@case(3 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def whose_outcomes(_bound):
    def call(number):
        _who("node-1", f"{number:064d}", f"ten_{number:012d}", f"key_{number:012d}")

    return function(call, _who)


@case(6 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def what_was_permitted(_bound):
    def call(number):
        policies = (f"{number:064d}", "public")
        _permitted("node-1", principal(number), Action.READ, f"{number:064d}", policies)

    return function(call, _permitted)


@case(MEGABYTE, size=lambda made: made.cache_info().currsize)
def clients_with_their_agents(_bound):
    def call(number):
        client = f"2001:db8:{number:x}:1:2222:3333:4444:5555"
        _of_client("GET", "/v1/{file}", client, f"{number:0200d}")

    return function(call, _of_client)


@case(16 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def names_of_files_in_records(_bound):
    """Three names of the greatest length, and what they are encoded to."""

    def call(number):
        names = f"b{number:0511d}", package(number), f"c{number:0511d}"
        asked = Resource(kind=ResourceKind.FILE, model=f"a{number:0511d}", package=names[1], file=names[2])
        _of_file(asked, *names, f"{number:032x}", f"{number:064x}", (1 << 40) + number)

    return function(call, _of_file)


@case(MEGABYTE // 8, size=lambda made: made.cache_info().currsize)
def names_of_headers(_bound):
    def call(number):
        RequestSecrets([(b"x-%08d" % number + b"n" * (30_000 if number % 2 else 54), b"value")], b"")

    return function(call, _names_a_secret)


@case(12 * MEGABYTE, size=lambda made: made.cache_info().currsize)
def resources_of_paths(_bound):
    """One character beyond the basic plane, and the rest of the path in one text with it."""

    def call(number):
        head = b"%08d%%F0%%9D%%84%%9E/" % number
        tail = b"/-/p/f" if number % 2 else b"/-/pp/ff"
        length = MAX_REMEMBERED_BYTES + (number % 2) - len(head) - len(tail)  # the longer ones: one too long
        segments = b"/".join([b"a" * 30] * 14)
        locate(MODELS_PATH + b"/" + head + segments + b"b" * (length - len(segments)) + tail)

    return function(call, _parse_remembered)


@case(5 * MEGABYTE, size=lambda made: len(made._digests))
def digests_of_links(_bound):
    def make():
        return KeysById(None)

    return make, lambda made, number: made._digests.put(f"key_{number:012d}", number.to_bytes(32, "big"))


@case(14 * MEGABYTE, size=lambda made: len(made._remembered))
def measurements(_bound):
    def put(made, number):
        identity = tuple(one + number + (1 << 60) for one in range(5))
        made.remember(Measured(identity=identity, md5=f"{number:032x}", sha256=f"{number:064x}"))

    return lambda: Measurer(SimpleNamespace(close=lambda: None)), put


@case(
    5 * MEGABYTE,
    size=lambda made: len(made._seen),
    sets=[(last_uses_module, "MAX_SEEN", 10_000), (last_uses_module, "MAX_MARKED", 10_000)],
)
def last_uses(_bound):
    def put(made, number):
        made.noted._note(f"key_{number:012d}", Credential("k"), NOW + number)

    def make():
        made = LastUses(lambda _secret: bytes(32))
        made.noted = made.noting(None)
        return made

    return make, put


@case(4 * MEGABYTE, size=lambda made: len(made._silences))
def silences(_bound):
    def make():
        return Metadata(upstream=None, local=None, clock=SimpleNamespace(monotonic=lambda: NOW))

    def put(made, number):
        one = SimpleNamespace(
            key_id=f"key_{number:012d}",
            allowed=SimpleNamespace(access=SimpleNamespace(principal=SimpleNamespace(degraded_seconds=60.0))),
        )
        with suppress(RuntimeError):
            made._verify_degraded(RuntimeError(), one)

    return make, put


@case(3 * MEGABYTE, size=lambda made: len(made._told))
def damaged_records_that_were_told_of(_bound):
    catalogue = SimpleNamespace(registry_record=lambda _model: b"{")
    return (
        lambda: LocalMetadata(catalogue, on_damaged=lambda _model: None, on_left_out=lambda *_: None),
        lambda made, number: made._note_damaged(model_id(number)),
    )


@case(MEGABYTE, size=lambda made: len(made._open))
def refusals_of_strangers(_bound):
    def put(made, number):
        stranger = AnonymousCaller(f"2001:db8:{number:x}::/64", f"key_{number:012d}")
        made.count(stranger, Reason.UNKNOWN_KEY.value, 1, lambda: f"{number:036d}")
        made.count(stranger, Reason.UNKNOWN_KEY.value, 1, lambda: f"{number:036d}")

    return lambda: RefusalLimiter(per_source=1, total=500), put


def weighed(one):
    """What the interpreter allocated for a memory that was filled twice over, and is still held."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        made = one.make()
        put = 0
        while put < one.least or put < 2.2 * one.size(made):
            one.put(made, put)
            put += 1
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        return made, one.size(made), put, held
    finally:
        tracemalloc.stop()


QUICK = {
    *("denials", "held_files", "held_files_with_content", "files_that_were_begun"),
    *("records_of_grants_with_wide_patterns", "networks_of_keys", "saved_workflows", "last_uses"),
    *("names_of_headers", "plain_agents_of_clients", "clients_with_their_agents", "refusals_of_strangers"),
}
"""Some of each kind, for every run: to fill a memory twice over takes a second, and there are fifty."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_a_memory_weighs_no_more_than_it_may(name, monkeypatch):
    one = CASES[name]
    for where, constant, value in one.sets:
        monkeypatch.setattr(where, constant, value)
    _made, size, put, held = weighed(one)
    assert 0 < size < put / 2  # it is full, and has let go of more than half of what was put there
    assert held <= FACTOR * one.bound + SPARE
    assert held >= one.bound / 4  # and what it may hold is not given away by counting too much


# What they come to together, when a tenant that owns nothing asks for one model after the other.


class Absent:
    """A store in which there are rules to decide by, and nothing else."""

    def __init__(self):
        policies = load_policy_folder(CHECKOUT_POLICIES)
        head, digest, text = encode_policy(policies)
        self.facts = {names.POLICY: head, names.policy_text(digest): text}

    def move(self):
        """There is one connection to it, and it stays."""

    async def read(self, wanted):
        return Moment(generation=1), [self.facts.get(name) for name in wanted]


def test_many_denials_hold_no_records_that_the_near_cache_evicted():
    bound, asked = MEGABYTE, 200
    near = NearCache(max_entries=1 << 30, max_bytes=bound)
    facts = NearFacts(Absent(), near, Lease(1e9), SimpleNamespace(monotonic=lambda: 0.0))
    facts.connected(Moment(generation=1))
    directory = DirectoryReader(Absent(), facts)
    made = Decisions(directory=directory, rules=Rulebook(), max_entries=1 << 30, max_bytes=bound)
    who = principal()

    async def ask(numbers):
        for number in numbers:
            one = Resource(kind=ResourceKind.MODEL, model=model_id(number))
            await made.reach(Access(principal=who, action=Action.DISCOVER, resource=one))

    asyncio.run(ask(range(10)))  # the rules are prepared
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        asyncio.run(ask(range(10, asked)))
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert near.counts.evictions > 10 * asked
    assert held <= FACTOR * 2 * bound + SPARE  # of the near cache, and of the denials
    for memory in made.memories:
        for _ in memory.sweep():
            pass
    remembered = sum(map(len, made.memories))
    assert remembered < asked / 2  # the records of the others are gone, and so are they


# And none is missing.

FILLED = {
    "faces/check.py",
    "audit/refusal_limiter.py",
    "audit/scrub.py",
    "audit/record_body.py",
    "audit/record_fields.py",
    "audit/request_secrets.py",
    "model/addresses.py",
    "decision/rulebook.py",
    "decisions.py",
    "directory/memory/near_cache.py",
    "front_door/dependencies.py",
    "front_door/workflows/blocks.py",
    "front_door/workflows/describer.py",
    "front_door/workflows/saved.py",
    "credential/client.py",
    "identity/authenticate.py",
    "identity/keys_by_id.py",
    "identity/last_uses.py",
    "identity/recent_callers.py",
    "model_metadata/attestations.py",
    "model_metadata/caller_metadata.py",
    "model_metadata/local_metadata.py",
    "model_metadata/sources.py",
    "model_metadata/link_effects.py",
    "pinning/measuring.py",
    "platform/upstream.py",
    "resource/held_files.py",
    "resource/held_listings.py",
    "resource/paths.py",
    "caller_views.py",
}
"""The modules with a memory that is filled above."""

BOUNDED_OTHERWISE = {
    "audit/grouped_log.py": "what waits for the disk: at most `MOST_WAITING`, and outcomes",
    "audit/keeping/keeper.py": "segments of one round, in a process of its own",
    "assembly/node_register.py": "nodes of the register, a thousand",
    "audit/consumers/delivery.py": "chains noted for retention, at most `MOST_CHAINS`",
    "audit/consumers/runner.py": "consumers that are registered, 32, and those that are ending",
    "audit/consumers/syslog.py": "pages that were sent last, at most `_MOST_PAGES`",
    "audit/index/hits.py": "segments held open, 32, and ids of one search",
    "audit/index/indexed_fields.py": "names of fields, at most so many: `lru_cache` has a size",
    "audit/index/indexer.py": "chains and segments of the folder, in a process of its own",
    "audit/index/listed_heads.py": "heads that wait to be passed, at most `MOST_PENDING`",
    "audit/index/order.py": "chains and segments of the folder; parts held open, at most `MOST_OPEN_PARTS`",
    "audit/index/part.py": "the records of one part, 8,192",
    "audit/index/reader.py": "records of one page",
    "audit/inquiries/key_history.py": "names of one question, at most `MAX_NAMES`",
    "audit/inquiries/readers.py": "readers of one question, at most `MAX_READERS`",
    "audit/inquiries/tenant_timeline.py": "lines of one question, at most `MAX_LINES`",
    "audit/inquiries/uses.py": "requests without an outcome, at most `MAX_OPEN`",
    "audit/readings.py": "readers of the last minute, at most `MOST_READERS`",
    "audit/timeline.py": "seconds and days that were written last: `lru_cache` has a size",
    "audit/usage/rollups.py": "days that are held, and their rows: tests/unit/audit/usage",
    "audit/usage/tally.py": "rows of a day, at most `MAX_ROWS`: tests/unit/audit/usage",
    "audit/usage/usage_report.py": "one report, of at most so many days and names",
    "faces/usage.py": "questions under way, at most `MOST_WAITING`",
    "feed/search_pace.py": "tenants that are paced, at most `MOST_PACED`",
    "feed/following.py": "the newest records, `HELD_RECORDS`, and their places",
    "feed/places.py": "tenants that have a place, of which there are so many",
    "operations/audit_consumers.py": "consumers that are registered, in a process of their own",
    "operations/audit_follow.py": "nodes, at most `MOST_NODES`, for a command",
    "audit/notes.py": "the notes of one folder, for a command or a round of keeping",
    "audit/reading.py": "one block of a file",
    "faces/audit.py": "searches for proofs that are under way, at most so many",
    "faces/authzen.py": "questions that are under way",
    "middleware/guard.py": "large forms that are being read, at most so many",
    "request_times.py": "faces and declared routes, whose names are ours",
    "identity/outside_tokens.py": "parsed key sets, 64 of issuers that the operator named",
    "identity/key_networks.py": "keys and their networks: tests/unit/identity/test_key_networks.py",
    "issuers/key_sets.py": "a task for each issuer that the operator named; a counter whose names are ours",
    "adapters/answer_reader.py": "the head of one answer, and what one read from a socket has of its body",
    "adapters/inference_server.py": "connections to servers that the operator named, 32 of them idle",
    "faces/front_door.py": "models of one request",
    "front_door/workflows/specification.py": "steps of one workflow, at most so many",
    "adapters/image_fetch.py": "tenants whose images are being fetched",
    "front_door/images.py": "images of one request, at most so many",
    "front_door/reading.py": "members of one body that were read",
    "front_door/servers.py": "tenants with a request under way",
    "front_door/table.py": "tables of versions of the server, which are ours",
    "middleware/bodies.py": "addresses whose bodies are being read",
    "adapters/redis_feed.py": "replies of one connection that are awaited, and pushes before it is followed",
    "adapters/redis_sentinels.py": "what the Sentinels answered, once",
    "audit/proven.py": "chains of a folder, for a command",
    "audit/writer.py": "heads that wait to be listed, at most a thousand; then nothing is answered",
    "barrier.py": "workers that are waited for, in one change",
    "chores.py": "background tasks, whose names are ours",
    "model/trusted_files.py": "components of one path",
    "platform/budget.py": "sources that are counted, at most so many: tests/unit/platform/test_budget.py",
    "resource/manifests.py": "charged and weighed: tests/unit/resource/test_manifests.py",
    "middleware/at_once.py": "requests of one event loop iteration, at most one of each connection",
    "problems.py": "problems, which are ours",
    "resource/disk_checks.py": "what was seen in one event loop iteration",
    "decision/explain.py": "one answer, for a command",
    "platform/unknown_keys.py": "weighed in tests/property/test_anonymous_callers.py",
    "server/acceptor.py": "connections that are open, of which there is a most",
    "adapters/provider.py": "a counter of outcomes, whose names are ours",
    "adapters/redis_store.py": "tasks that are under way",
    "audit/chain.py": "records that wait to be written; nothing is answered while they cannot be",
    "audit/events.py": "segments of a folder, for a command",
    "audit/walk.py": "chains of a folder, for a command",
    "audit/heads_evidence.py": "chains of a folder, for a command",
    "decisions.py": "questions under way",
    "model/toml_lines.py": "a document, for a command",
    "model/toml_tables.py": "a document, for a command",
    "directory/memory/lease.py": "sixteen renewals",
    "directory/reading/read_set.py": "one answer",
    "directory/memory/near_facts.py": "reads under way",
    "directory/records/policies.py": "four policy sets: the operator's",
    "directory/records/codec.py": "the seven sets of actions",
    "inprocess/instances.py": "as many models as the operator says; 64 questions of each thread",
    "model/bounded_memory.py": "itself",
    "model/singleflight.py": "itself",
    "model/stores.py": "one change",
    "operations/session.py": "records that do not parse, for a command",
    "pinning/ahead.py": "blobs that changed while they were read, until the next look",
    "pinning/checks.py": "files that are measured, at most so many",
    "platform/asking.py": "512 tasks under way",
    "platform/shares.py": "keys that have something under way",
    "resource/listed.py": "the catalogue: what is on disk",
    "resource/scan.py": "the catalogue: what is on disk",
    "resource/scanner.py": "the catalogue: what is on disk",
    "server/head_starts.py": "statuses",
    "server/process.py": "questions to a worker that are under way",
    "server/protocol.py": "requests of a connection, at most so many",
    "server/status.py": "counters, whose names are ours",
    "server/supervisor.py": "worker slots",
    "server/send_queue.py": "transfers under way",
    "telemetry.py": "counters, whose names are ours, and statuses",
    "transfers.py": "transfers under way",
    "engine/answers.py": "one answer",
    "operations/cache/status.py": "the cache's blobs, for a command",
    "operations/cache/survey.py": "the cache's files, for a command",
    "operations/cache/verify.py": "the cache's files, for a command",
}
"""Other modules with something that grows, and what bounds it."""

GROWS = re.compile(
    r"lru_cache|^@cache$|OrderedDict\(|BoundedMemory|Singleflight\(|WeakValueDictionary\(|deque\(|Counter\(|defaultdict\("
    r"|self\.\w+(?:: [^=\n]+)? = (?:\{\}|set\(\)|dict\(\)|\[\])"
    r"|default_factory=(?:dict|set|list|Counter)|^_\w+: dict\b.* = \{\}",
    re.MULTILINE,
)


def test_every_memory_is_filled_or_says_what_bounds_it():
    root = Path(gateway.__file__).parent
    commands = {"cli", "demo", "terminal"}  # they live for a moment
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0] not in commands and GROWS.search(path.read_text())
    }
    wired = {  # they pass memories on
        *("assembly/pipeline.py", "assembly/upkeep.py", "audit/log.py", "identity/any_credential.py"),
    }
    assert found - wired == FILLED | set(BOUNDED_OTHERWISE)
