"""The settings, as one frozen object. Each is a field that declares how its text is read and documented.

Its name in the file is the field's, its variable `CACHEGATE_` and the name in capitals;
docs/reference/settings.md holds the same table and a test compares the two. `sources.py` loads the values.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.configuration.values import (
    read_check_prefixes,
    read_choice,
    read_durability,
    read_environment_tag,
    read_location,
    read_mount,
    read_networks,
    read_number,
    read_origins,
    read_path,
    read_roots,
    read_servers,
    read_service_key,
    read_switch,
    read_text,
    read_url,
)
from gateway.model.access_claims import MAX_TOKEN_SECONDS
from gateway.model.check_prefixes import CheckPrefix  # noqa: TC001 -- msgspec reads annotations
from gateway.model.durability import Durability
from gateway.model.inference import InferenceServer  # noqa: TC001 -- msgspec reads annotations

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "CACHEGATE_"
PACKAGED_POLICIES = Path(__file__).parent.parent / "packaged_policies"
CHECKOUT_POLICIES = Path(__file__).parent.parent.parent / "policies"


def _setting(
    meaning: str,
    read: Callable[[str], Any],
    default: Any = None,
    shown: str | None = None,
    *,
    is_secret: bool = False,
) -> Any:
    """A field with its documentation and the function that parses its text."""
    metadata = {"meaning": meaning, "read": read, "shown": shown or str(default)}
    return field(default=default, metadata=metadata, repr=not is_secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Built by `load_settings`; tests build it directly.

    A dataclass, unlike the other values: each field carries its documentation, its reader and its default as
    text, in the metadata that dataclass fields have. It is made once for a process.
    """

    state: Path = _setting(
        "State folder: pepper, signing key, audit, embedded Valkey.",
        read_path,
        Path(".cachegate"),
        "./.cachegate",
    )
    cache_root: Path = _setting(
        "The engine's cache root.",
        read_path,
        Path("/tmp/cache"),  # noqa: S108 -- the engine's own default
        "INFERENCE_HOME, MODEL_CACHE_DIR, /tmp/cache",
    )
    alias_roots: tuple[str, ...] = _setting(
        "Other paths under which writers of the volume saw the cache root, separated by `:`; "
        "the engine's links are absolute.",
        read_roots,
        (),
        "none",
    )
    policies: Path = _setting(
        "Policy folder, the input of `policy apply`.",
        read_path,
        PACKAGED_POLICIES,
        "./policies if it exists, else the packaged set",
    )
    redis_url: str | None = _setting(
        "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://.",
        read_text,
        None,
        "unset: embedded Valkey",
    )
    audit_dir: Path | None = _setting("Audit folder.", read_path, None, "the state folder's audit/")
    audit_durability: Durability = _setting(
        "`process`: a record survives kill -9; `power`: it survives a power cut.",
        read_durability,
        Durability.PROCESS,
        "process",
    )
    audit_patience_seconds: int = _setting(
        "With `power`: how long a request waits for its record to be on the disk before it is answered 503.",
        read_number(1, 300),
        5,
    )
    audit_segment_megabytes: int = _setting(
        "The size at which an audit segment is closed and the next one begun.", read_number(1, 1024), 64
    )
    audit_segment_hours: int = _setting("The age at which it is.", read_number(1, 8760), 24)
    audit_pack_minutes: int = _setting(
        "How long after it was closed a segment is compressed (zstd); 0 never.", read_number(0, 525_600), 60
    )
    audit_keep_days: int = _setting(
        "How old audit records may get before they are removed, with a signed note; 0: they stay.",
        read_number(0, 36_500),
        0,
    )
    audit_keep_gigabytes: int = _setting(
        "How large the audit log of this node may get before its oldest segments are removed; 0: no limit.",
        read_number(0, 1_000_000),
        0,
    )
    audit_wait_days: int = _setting(
        "How long a segment that is due stays when a consumer of the log still needs it, after an alarm.",
        read_number(0, 3650),
        7,
    )
    audit_stream: bool = _setting(
        "`on` or `off`: whether the audit log is also copied into a stream in Redis, where consumer groups "
        "read the records of all nodes. The same on every node.",
        read_switch,
        False,
        "off",
    )
    audit_stream_megabytes: int = _setting(
        "Memory of Redis that this stream may take at most; beyond it the oldest records go, and groups that "
        "had not read them find a mark.",
        read_number(1, 65_536),
        64,
    )
    audit_refusals_per_second: int = _setting(
        "Refusals of callers without a valid key that each worker records one by one, per source and second; "
        "a summary record stands for the rest.",
        read_number(1, 10_000),
        10,
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "Networks (and `unix`) of proxies whose X-Forwarded-For is believed, separated by commas. They alone "
        "may ask the check routes.",
        read_networks,
        (),
        "none",
    )
    check_prefixes: tuple[CheckPrefix, ...] = _setting(
        "Where proxies that ask first have our paths, as `PROXY=GATEWAY` pairs separated by commas, such as "
        "/files=/v1/models. With one, all other paths of the proxy are refused.",
        read_check_prefixes,
        (),
        "none: the proxy has the same paths",
    )
    token_env: str = _setting("The <env> part of new keys, cg_<env>_...", read_environment_tag, "live")
    node: str = _setting(
        "This node's name in audit records.", read_text, socket.gethostname(), "the host name"
    )
    node_url: str | None = _setting(
        "Where this node's public listener is reached by those who read the audit log of all nodes "
        "(`audit follow`): http or https, a host, and a path prefix if there is one. Readers with a key are "
        "told it.",
        read_url,
        None,
        "unset: the audit log of this node is read where it is asked for",
    )
    lease_milliseconds: int = _setting(
        "How long a worker may answer from memory without having heard from Redis. "
        "A revocation waits no longer than this for a worker that does not answer.",
        read_number(100, 60_000),
        1000,
    )
    near_cache_entries: int = _setting(
        "Facts that a worker remembers at most, and as many decisions.", read_number(100, 10_000_000), 200_000
    )
    near_cache_megabytes: int = _setting(
        "Memory for the facts at most, by what they hold; decisions that allow, decisions that deny and what "
        "callers may see have as much each.",
        read_number(1, 65_536),
        128,
    )
    canary_seconds: int = _setting(
        "How often one worker of the fleet measures what a revocation takes; 0 never.",
        read_number(0, 3600),
        5,
    )
    held_files_megabytes: int = _setting(
        "Memory of a worker for small files that are read often, at most 64 KiB each; 0 keeps none. "
        "Files that changed since may take as much again for a while.",
        read_number(0, 65_536),
        32,
    )
    scan_seconds: int = _setting(
        "How often the catalogue looks for what changed on disk.", read_number(1, 3600), 1
    )
    accel_redirect_prefix: str | None = _setting(
        "Where the nginx in front has the blobs, as an internal location: pinned blobs are then handed "
        "to it by X-Accel-Redirect (deploy/nginx/accel.conf). Only for a gateway that nothing but this "
        "nginx reaches.",
        read_location,
        None,
        "unset: files are sent from here",
    )
    pin_in_background: bool = _setting(
        "`on` or `off`: whether blobs are hashed and pinned before they are asked for, one at a time on "
        "each node, with pauses: it uses at most a quarter of a core.",
        read_switch,
        True,
        "on",
    )
    public_url: str | None = _setting(
        "How clients reach us, for signed URLs and access tokens: http or https, a host, and a path prefix if"
        " there is one.",
        read_url,
        None,
        "unset: no engine face, no access tokens",
    )
    upstream: str | None = _setting(
        "The weights provider, such as https://api.roboflow.com.", read_url, None, "unset: local answers only"
    )
    authority: str = _setting(
        "`local`: our own keys, grants and rules decide. `platform`: the provider is asked whether a key "
        "may read a model, and its answer becomes facts for a while.",
        read_choice("local", "platform"),
        "local",
    )
    allow_seconds: int = _setting("How long an allow of the platform is believed.", read_number(1, 60), 60)
    deny_seconds: int = _setting("How long a denial of the platform is.", read_number(1, 10), 10)
    unknown_key_questions: int = _setting(
        "How many questions a second each worker asks the platform about keys that nobody here knows; an "
        "address, or an IPv6 network of 64 bits, gets a tenth of it. Four seconds' worth may come at once.",
        read_number(1, 10_000),
        50,
    )
    link_seconds: int = _setting(
        "How long a signed URL lives; it has to outlast the load of the whole model.",
        read_number(60, 86_400),
        3600,
    )
    token_seconds: int = _setting(
        "How many seconds an access token lives. Who verifies tokens offline may learn of a revocation as "
        "late as that.",
        read_number(60, MAX_TOKEN_SECONDS),
        MAX_TOKEN_SECONDS,
    )
    relay: bool = _setting(
        "`on` or `off`: whether files that are not in the cache are streamed through us; else clients "
        "get the provider's own URL.",
        read_switch,
        False,
        "off",
    )
    private_upstreams: bool = _setting(
        "`on` or `off`: whether the provider and its storage may have private addresses.",
        read_switch,
        False,
        "off",
    )
    private_issuers: bool = _setting(
        "`on` or `off`: whether outside issuers, whose tokens are accepted, may have private addresses, and "
        "plain http.",
        read_switch,
        False,
        "off",
    )
    shared_links: str = _setting(
        "`any`: a link counts as it lies on disk. `attested`: one to a blob that other owners' packages link "
        "as well counts only where the provider's metadata of that model, or an operator, names its digest.",
        read_choice("any", "attested"),
        "any",
    )
    inference_url: tuple[InferenceServer, ...] = _setting(
        "Inference servers behind the front door, separated by commas, such as http://10.0.0.5:9001; private "
        "addresses are allowed. `north=http://10.0.0.6:9001` binds one to tenant north, whose requests go "
        "to its own servers alone.",
        read_servers,
        (),
        "unset: no front door",
    )
    inference_key: str | None = _setting(
        "The operator's key for the inference servers: it goes in for callers with keys and tokens of ours. "
        "A platform's own keys pass through.",
        read_service_key,
        None,
        "unset: keys of ours cannot run models",
        is_secret=True,
    )
    inference_key_file: Path | None = _setting(
        "A file with that key, which only this user can read; instead of `inference_key`.",
        read_path,
        None,
        "unset",
    )
    inference_mount: str = _setting(
        "The path below which the front door answers. `/`: at the root, where our own routes come first.",
        read_mount,
        "/inference",
    )
    inference_max_body_megabytes: int = _setting(
        "The largest body of a request to an inference server.", read_number(1, 1024), 32
    )
    inference_origins: tuple[str, ...] = _setting(
        "Origins of pages whose scripts may call the front door (CORS), separated by commas, such as "
        "https://app.example.",
        read_origins,
        (),
        "none",
    )
    admin_host: str = _setting(
        "Address of the admin API's own listener, which the workers serve.", read_text, "127.0.0.1"
    )
    admin_port: int = _setting("Its port; 0 takes a free one.", read_number(0, 65_535), 9091)
    admin_public: bool = _setting(
        "`on` or `off`: whether the admin API answers on the public listener instead of one of its own.",
        read_switch,
        False,
        "off",
    )
    tls_certificate: Path | None = _setting(
        "Certificate chain in PEM for TLS on the public socket, with `tls_key`. Files then go out by "
        "chunks: the kernel cannot encrypt what it sends by itself.",
        read_path,
        None,
        "unset: plain HTTP",
    )
    tls_key: Path | None = _setting("Its private key, in PEM, without password.", read_path, None, "unset")
    grace_seconds: int = _setting(
        "How long a stopping worker lets transfers finish.", read_number(0, 3600), 10
    )
    hang_seconds: int = _setting(
        "How long a worker may answer nothing, not even whether it is ready, before it is killed and another "
        "one started in its place.",
        read_number(4, 3600),
        20,
    )
    stall_seconds: int = _setting(
        "How long a client may take in nothing of what waits for it, or less than 240 bytes a second, before "
        "its connection is cut.",
        read_number(1, 3600),
        60,
    )
    connections: int = _setting(
        "Connections that a worker keeps at once; no address may have more than half of them, but for "
        "trusted proxies. Where the limit of open files is low, it is a third of that.",
        read_number(8, 1_000_000),
        4096,
    )

    @property
    def audit_folder(self) -> Path:
        """The folder of audit segments."""
        return self.audit_dir if self.audit_dir is not None else self.state / "audit"

    @property
    def pins_folder(self) -> Path:
        """The folder of this node's measurements of files."""
        return self.state / "pins"

    @property
    def pepper_folder(self) -> Path:
        """The folder of the peppers: never in Redis, the same on every node."""
        return self.state / "peppers"

    @property
    def history_file(self) -> Path:
        """The file with the last seen history of the facts."""
        return self.state / "history.json"

    @property
    def seen_cache_file(self) -> Path:
        """The file that records where this node last saw models."""
        return self.state / "seen-cache.json"

    @property
    def link_key_file(self) -> Path:
        """The key that signs URLs: the same on every node."""
        return self.state / "signing" / "links.key"

    @property
    def token_key_folder(self) -> Path:
        """The keys that sign access tokens: the same on every node."""
        return self.state / "signing" / "tokens"

    @property
    def hook_key_file(self) -> Path:
        """The key that the platform signs its webhooks with."""
        return self.state / "signing" / "hook.key"

    @property
    def feed_key_file(self) -> Path:
        """The key that the cursors of the audit feed are sealed with: this node's alone, made when needed."""
        return self.state / "signing" / "feed.key"

    @property
    def signing_key_file(self) -> Path:
        """The Ed25519 key that signs the heads of audit chains."""
        return self.state / "signing" / "audit.pem"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()
