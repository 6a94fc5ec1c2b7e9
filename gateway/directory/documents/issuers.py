"""Reads issuer documents: TOML files that say whose tokens are accepted, and which tenant their claims mean.

One file describes one issuer; `policies/issuers/example.toml` shows the format. A document is accepted as a
whole or not at all, with every problem reported by file and line, as tenant documents are.

What a document must not do is open more than its author meant. So:

- The audience is required: without one, a token that was made for another service would be accepted here.
- A rule names at least one claim. A star stands last, and after a `/` or a `:`: `acme/*` is what is below
  `acme`, whereas `acme*` would also be `acme-evil`, an account that anybody can open.
- An issuer that signs for everybody has to be asked for more than a branch: a rule for GitHub Actions names
  whose repository it is.

Non-goals: comparing documents with the facts in force (`plan.py`), and whether the issuer answers (`doctor`).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from gateway.directory.documents.tables import DocumentTables
from gateway.model.errors import BadNameError, Misconfigured
from gateway.model.facts import Scope
from gateway.model.issuers import (
    BINDING_SCOPES,
    ISSUERS_SOURCE,
    MAX_BINDINGS,
    MAX_CLAIMS,
    MAX_ISSUERS,
    MAX_LEEWAY_SECONDS,
    MAX_LIFETIME_SECONDS,
    MAX_RULES,
    MAX_VALUES,
    WILDCARD,
    ClaimMatch,
    Issuer,
    MappingRule,
)
from gateway.model.names import parse_group_name, parse_pattern, parse_tenant_id
from gateway.model.toml_tables import DocumentProblems
from gateway.model.trusted_files import refuse, verify_trusted_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from gateway.model.trusted_files import Distrusted

ALGORITHMS = ("EdDSA", "ES256", "RS256")
DEFAULT_LEEWAY_SECONDS = 30
DEFAULT_LIFETIME_SECONDS = 3600
DEFAULT_BINDINGS = 1000
MAX_NETWORKS = 64
MAX_URL_CHARACTERS = 1024
MAX_VALUE_CHARACTERS = 512

_ISSUER_KEYS = (
    "url",
    "audience",
    "jwks",
    "algorithms",
    "types",
    "leeway_seconds",
    "max_lifetime_seconds",
    "max_bindings",
)
_RULE_KEYS = ("name", "tenant", "claims", "scopes", "networks", "model")
_OF_THE_TOKEN = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti"})
"""Claims about the token itself: they are verified, and no right follows from them."""

_SEPARATORS = "/:"

_OWNERS = {
    "https://token.actions.githubusercontent.com": (
        "sub", "repository", "repository_id", "repository_owner", "repository_owner_id",
    ),
    "https://gitlab.com": (
        "sub", "project_path", "project_id", "namespace_path", "namespace_id",
    ),
}  # fmt: skip
"""Issuers that sign for everybody, and the claims of which a rule needs one, to say whose tokens it means."""


class IssuerDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one file about one issuer. `where` is the file, for conflicts found later."""

    where: str
    issuer: Issuer


def load_issuer_documents(
    folder: Path, *, may_be_private: bool = False, on_distrust: Callable[[Distrusted], None] = refuse
) -> tuple[IssuerDocument, ...]:
    """Return every document of a folder, by name. Raises `DocumentProblems` if any has a problem.

    Without the folder there is none: then no token of an outside issuer is accepted. `may_be_private` permits
    plain http, for an issuer in the operator's own network.
    """
    if not folder.is_dir():
        return ()
    verify_trusted_folder(folder, expected="one that holds issuer documents", on_distrust=on_distrust)
    problems: list[Misconfigured] = []
    read: list[tuple[IssuerDocument, DocumentTables]] = []
    for path in sorted(folder.glob("*.toml")):
        if path.name.startswith("."):
            continue
        tables = DocumentTables(path, on_distrust=on_distrust)
        document = _document(path, tables, may_be_private=may_be_private) if tables.content else None
        problems += tables.problems
        if document is not None:
            read.append((document, tables))
    problems += _contradictions(read)
    if len(read) > MAX_ISSUERS:
        problems.append(
            Misconfigured(str(folder), f"holds {len(read)} issuers; expected at most {MAX_ISSUERS}")
        )
    if problems:
        raise DocumentProblems(problems)
    return tuple(document for document, _ in read)


def _document(path: Path, tables: DocumentTables, *, may_be_private: bool) -> IssuerDocument:
    content = tables.content
    tables.refuse_unknown(content, "", ("issuer", "rules"))
    tables.name(path.stem, parse_group_name, "issuer", "url")
    issuer = tables.table(content, "", "issuer")
    tables.refuse_unknown(issuer, "issuer", _ISSUER_KEYS)
    url = _url(tables, issuer, "url", may_be_private=may_be_private)
    return IssuerDocument(
        where=tables.where("issuer"),
        issuer=Issuer(
            source=f"{ISSUERS_SOURCE}{path.stem}",
            url=url,
            audience=_audience(tables, issuer),
            key_set_url=_url(tables, issuer, "jwks", may_be_private=may_be_private),
            algorithms=_algorithms(tables, issuer),
            types=_types(tables, issuer),
            leeway_seconds=_seconds(
                tables, issuer, "leeway_seconds", MAX_LEEWAY_SECONDS, DEFAULT_LEEWAY_SECONDS
            ),
            max_lifetime_seconds=_lifetime(tables, issuer),
            max_bindings=_max_bindings(tables, issuer),
            rules=_rules(tables, url),
        ),
    )


def _url(tables: DocumentTables, table: Mapping[str, Any], key: str, *, may_be_private: bool) -> str:
    """Return an https URL as it is written: `iss` is compared to the letter."""
    text = tables.text(table, "issuer", key, "")
    if not isinstance(table.get(key, ""), str):
        return text  # its problem is already recorded
    expected = "an https URL, such as https://issuer.example/keys"
    if not text:
        tables.complain(f"no {key}; expected {expected}", "issuer", key)
        return text
    try:
        parts = urlsplit(text)
        is_plain = bool(parts.hostname) and not (parts.username or parts.password or parts.fragment)
        _ = parts.port
    except ValueError:
        is_plain, parts = False, urlsplit("")
    if not is_plain or parts.scheme not in {"http", "https"} or not text.isascii() or not text.isprintable():
        tables.complain(f"{text!r} in {key}; expected {expected}", "issuer", key)
    elif parts.scheme == "http" and not may_be_private:
        why = f"{key} is plain http, in which anybody on the way can put keys of their own"
        tables.complain(f"{why}; expected https (or CACHEGATE_PRIVATE_ISSUERS=on)", "issuer", key)
    elif len(text) > MAX_URL_CHARACTERS or " " in text:
        tables.complain(
            f"{key} has a blank or more than {MAX_URL_CHARACTERS} characters; expected {expected}",
            "issuer",
            key,
        )
    return text


def _audience(tables: DocumentTables, table: Mapping[str, Any]) -> str:
    text = tables.text(table, "issuer", "audience", "")
    if not text and isinstance(table.get("audience", ""), str):
        why = "no audience, so that tokens made for other services would be accepted"
        tables.complain(
            f'{why}; expected what `aud` has to be, such as "https://models.example"', "issuer", "audience"
        )
    return text


def _algorithms(tables: DocumentTables, table: Mapping[str, Any]) -> tuple[str, ...]:
    found = tables.names(table, "issuer", "algorithms", _parse_algorithm)
    if table.get("algorithms", []) == []:
        tables.complain(f"no algorithms; expected some of {', '.join(ALGORITHMS)}", "issuer", "algorithms")
    return found


def _parse_algorithm(text: str) -> str:
    if text == "Ed25519":
        raise BadNameError("expected EdDSA, which tokens and keys that say Ed25519 (RFC 9864) count as here")
    if text not in ALGORITHMS:
        raise BadNameError(f"not an algorithm that is accepted; expected {', '.join(ALGORITHMS)}")
    return text


def _types(tables: DocumentTables, table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the types; an empty one permits a token that states none."""
    if "types" not in table:
        return ("jwt",)
    found = tables.names(table, "issuer", "types", _parse_type)
    if table["types"] == []:
        tables.complain('no types; expected what `typ` may be, such as ["JWT"]', "issuer", "types")
    return tuple(dict.fromkeys(found))


def _parse_type(text: str) -> str:
    if len(text) > MAX_VALUE_CHARACTERS or not text.isascii() or not text.isprintable():
        raise BadNameError("not a type of tokens")
    return text.lower().removeprefix("application/")  # RFC 7515, 4.1.9


def _seconds(tables: DocumentTables, table: Mapping[str, Any], key: str, most: int, default: int) -> int:
    return int(tables.seconds(table, "issuer", key, most)) if key in table else default


def _lifetime(tables: DocumentTables, table: Mapping[str, Any]) -> int:
    key = "max_lifetime_seconds"
    found = _seconds(tables, table, key, MAX_LIFETIME_SECONDS, DEFAULT_LIFETIME_SECONDS)
    if found == 0 and not tables.problems:
        tables.complain(f"{key} is 0; expected how long a token may live at most", "issuer", key)
    return found


def _max_bindings(tables: DocumentTables, table: Mapping[str, Any]) -> int:
    found = table.get("max_bindings", DEFAULT_BINDINGS)
    if type(found) is int and 1 <= found <= MAX_BINDINGS:
        return found
    shown = str(found)[:MAX_VALUE_CHARACTERS] if isinstance(found, int | str) else type(found).__name__
    expected = f"a whole number from 1 to {MAX_BINDINGS}"
    tables.complain(f"max_bindings is {shown}; expected {expected}", "issuer", "max_bindings")
    return DEFAULT_BINDINGS


def _rules(tables: DocumentTables, url: str) -> tuple[MappingRule, ...]:
    written = tables.tables("rules")
    if not written and tables.content.get("rules", []) == []:
        tables.complain("no [[rules]], so no token means a tenant; expected one at least", "issuer")
    if len(written) > MAX_RULES:
        tables.complain(f"{len(written)} rules; expected at most {MAX_RULES}", "rules")
    rules: dict[str, MappingRule] = {}
    for nth, table in enumerate(written):
        rule = _rule(tables, table, nth, url)
        if rule is None:
            continue
        if rule.name in rules:
            tables.complain(
                f"a rule {rule.name!r} again; expected names that differ", "rules", "name", nth=nth
            )
        rules[rule.name] = rule
    return tuple(rules.values())


def _rule(tables: DocumentTables, table: Mapping[str, Any], nth: int, url: str) -> MappingRule | None:
    tables.refuse_unknown(table, "rules", _RULE_KEYS, nth)
    before = len(tables.problems)
    name = _one_name(tables, table, "name", parse_group_name, nth)
    tenant = _one_name(tables, table, "tenant", parse_tenant_id, nth)
    claims = _claims(tables, table, nth, url)
    scopes = tables.names(table, "rules", "scopes", _parse_scope, nth)
    if table.get("scopes", []) == []:
        tables.complain(
            f"no scopes; expected some of {', '.join(sorted(BINDING_SCOPES))}", "rules", "scopes", nth=nth
        )
    networks = tables.names(table, "rules", "networks", _parse_network, nth)
    if len(networks) > MAX_NETWORKS:
        tables.complain(
            f"{len(networks)} networks; expected at most {MAX_NETWORKS}", "rules", "networks", nth=nth
        )
    only = _one_name(tables, table, "model", parse_pattern, nth) if "model" in table else None
    if name is None or tenant is None or len(tables.problems) > before:
        return None
    return MappingRule(
        name=name, tenant=tenant, claims=claims, scopes=frozenset(scopes), networks=networks, only=only
    )


def _one_name(
    tables: DocumentTables, table: Mapping[str, Any], key: str, parse: Callable[[str], Any], nth: int
) -> Any:
    text = tables.text(table, "rules", key, "", nth)
    if not isinstance(table.get(key, ""), str):
        return None  # its problem is already recorded
    return tables.name(text, parse, "rules", key, nth).get(text)


def _claims(tables: DocumentTables, rule: Mapping[str, Any], nth: int, url: str) -> tuple[ClaimMatch, ...]:
    """Return what the claims have to be. One text stands for a list of one."""
    at = "rules.claims"
    table = tables.table(rule, "rules", "claims", nth)
    if not table:
        why = "a rule without claims would be about every token of the issuer; expected one at least"
        tables.complain(why, "rules", "claims", nth=nth)
        return ()
    if len(table) > MAX_CLAIMS:
        tables.complain(f"{len(table)} claims; expected at most {MAX_CLAIMS}", at, nth=nth)
    matches = []
    for claim, written in table.items():
        if claim in _OF_THE_TOKEN or not claim:
            why = f"{claim} is about the token itself; expected claims about its subject"
            tables.complain(why, at, claim, nth=nth)
        listed = {claim: [written]} if isinstance(written, str) else table
        values = tables.names(listed, at, claim, _parse_value, nth)
        if listed[claim] == [] or len(values) > MAX_VALUES:
            tables.complain(
                f"{claim} has {len(values)} values; expected 1 to {MAX_VALUES}", at, claim, nth=nth
            )
        matches.append(ClaimMatch(claim=claim, values=values))
    owners = _OWNERS.get(url.rstrip("/"))
    if owners is not None and not any(one.claim in owners and not _is_anybody(one) for one in matches):
        why = f"{url} signs for everybody, and the rule does not say whose tokens it means"
        tables.complain(f"{why} (repo:* means everybody's); expected one of {', '.join(owners)}", at, nth=nth)
    return tuple(sorted(matches, key=lambda one: one.claim))


def _is_anybody(match: ClaimMatch) -> bool:
    """Whether a rule for `sub` names nobody: `repo:*` is every repository there is."""
    return match.claim == "sub" and any(
        one.endswith(WILDCARD) and sum(map(one.count, _SEPARATORS)) == 1 for one in match.values
    )


def _parse_value(text: str) -> str:
    """Parse what a claim has to be: a text, or the beginning of one, up to a separator, and a star."""
    if not text or len(text) > MAX_VALUE_CHARACTERS or not text.isprintable():
        raise BadNameError(f"expected a text of at most {MAX_VALUE_CHARACTERS} printable characters")
    if WILDCARD not in text:
        return text
    stem = text.removesuffix(WILDCARD)
    if WILDCARD in stem or len(stem) < 2 or stem[-1] not in _SEPARATORS:  # noqa: PLR2004 -- a name and a separator
        raise BadNameError("a star stands last, once, after a / or a :, as in acme/* or repo:acme/vision:*")
    return text


def _parse_scope(text: str) -> Scope:
    if text not in {one.value for one in BINDING_SCOPES}:
        raise BadNameError(f"not a scope that a binding has; expected {', '.join(sorted(BINDING_SCOPES))}")
    return Scope(text)


def _parse_network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise BadNameError(f"not a network: expected CIDR such as 10.0.0.0/8 ({error})") from error
    first = network.network_address
    if isinstance(first, ipaddress.IPv6Address) and (first.scope_id or first.ipv4_mapped):
        raise BadNameError("expected IPv4 as IPv4, and no interface")
    return str(network)


def _contradictions(read: list[tuple[IssuerDocument, DocumentTables]]) -> Iterator[Misconfigured]:
    """Yield a problem for each issuer that two documents describe."""
    first: dict[str, IssuerDocument] = {}
    for document, tables in read:
        other = first.setdefault(document.issuer.url, document)
        if other is not document and document.issuer.url:
            why = f"{document.issuer.url!r} stands in {other.where} too; expected one document per issuer"
            yield Misconfigured(tables.where("issuer", "url"), why)
