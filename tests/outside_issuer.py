"""An outside issuer in a process of its own: its keys, its key set over https, and tokens that it signs.

`Issuer` starts it and speaks with it in JSON lines. The process has a certificate of a test authority, whose
file a gateway trusts by `SSL_CERT_FILE`. What it answers can be changed: keys rotate, it hangs, it lies.
"""

from __future__ import annotations

import datetime as dt
import json
import ssl
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "https://models.example"
KINDS = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


class Issuer:
    """The issuer, as a test holds it."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_authority(folder)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = json.loads(self._process.stdout.readline())["port"]
        self._lock = threading.Lock()

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    @property
    def key_set_url(self):
        return f"{self.url}/keys"

    @property
    def authority(self):
        return str(self.folder / "authority.pem")

    def ask(self, **what):
        """One command; its answer."""
        with self._lock:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def token(self, *, subject="repo:acme/vision:ref:refs/heads/main", alg="RS256", headers=None, **claims):
        """A token that is valid for ten minutes, but for what the claims say; None leaves one out."""
        now = int(time.time())  # noqa: TID251 -- the issuer reads its own clock
        said = {"iss": self.url, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 600, **claims}
        said = {name: value for name, value in said.items() if value is not None}
        return self.ask(do="sign", claims=said, alg=alg, headers=headers or {})["token"]

    def rotate(self, *, keep=True):
        """New keys; with `keep` the former ones stay in the set."""
        self.ask(do="rotate", keep=keep)

    def behave(self, how):
        """`well`, or one of the ways in `Handler.do_GET`."""
        self.ask(do="behave", how=how)

    @property
    def kids(self):
        """The names of the keys that sign now, by algorithm."""
        return self.ask(do="kids")

    @property
    def fetches(self):
        """How often its keys were asked for."""
        return self.ask(do="count")["fetches"]

    def stop(self):
        """End the process: nothing answers any more."""
        if self._process.poll() is None:
            self._process.stdin.close()
            self._process.wait(10)
        self._process.stdout.close()

    def document(self, *rules, **fields):
        """A document about it, in TOML; fields are written over the usual ones, None leaves one out."""
        said = {
            "url": self.url,
            "audience": AUDIENCE,
            "jwks": self.key_set_url,
            "algorithms": ["RS256", "ES256", "EdDSA"],
            **fields,
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in said.items() if value is not None]
        return "\n".join(["[issuer]", *lines, *(rules or (rule(),))]) + "\n"


def rule(name="main", tenant="acme", scopes=("read",), networks=(), **claims):
    """A rule of a document, in TOML."""
    claims = claims or {"repository": "acme/vision"}
    lines = [
        "[[rules]]",
        f'name = "{name}"',
        f'tenant = "{tenant}"',
        f"scopes = {json.dumps(list(scopes))}",
        f"networks = {json.dumps(list(networks))}",
        "[rules.claims]",
        *(f"{claim} = {json.dumps(values)}" for claim, values in claims.items()),
    ]
    return "\n".join(lines)


def write_authority(folder):
    """A test authority, and a certificate of it for localhost."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = certificate(authority_key.public_key(), "Test authority", authority_key, "Test authority")
    own = certificate(key.public_key(), "localhost", authority_key, "Test authority")
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(authority.public_bytes(pem))
    (folder / "issuer.pem").write_bytes(own.public_bytes(pem))
    (folder / "issuer.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def certificate(public_key, name, signer, signed_by):
    now = dt.datetime.now(dt.UTC)
    is_authority = name == signed_by
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, signed_by)]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if is_authority:
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    else:
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


# The process


class State:
    """Keys, what it answers, and how often it was asked."""

    def __init__(self):
        self.how = "well"
        self.fetches = 0
        self.serial = 0
        self.signing = {}
        self.jwks = []
        self.rotate(keep=False)

    def rotate(self, *, keep):
        self.serial += 1
        fresh = {
            "RS256": rsa.generate_private_key(65537, 2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        self.signing = {alg: (f"{alg.lower()}-{self.serial}", key) for alg, key in fresh.items()}
        jwks = [public_jwk(kid, alg, key.public_key()) for alg, (kid, key) in self.signing.items()]
        self.jwks = [*jwks, *(self.jwks if keep else [])]

    def sign(self, claims, alg, headers):
        kid, key = self.signing[alg]
        return jwt.encode(claims, key, algorithm=alg, headers={"kid": kid, **headers})


def public_jwk(kid, alg, key):
    members = KINDS[alg].to_jwk(key, as_dict=True)
    members.pop("key_ops", None)
    return {**members, "kid": kid, "alg": alg, "use": "sig"}


def lie(how, jwks):
    """What is no key set, and is served as one."""
    weak = public_jwk("weak", "RS256", rsa.generate_private_key(65537, 1024).public_key())
    private = {**jwks[0], "d": urlsafe_b64encode(b"private").decode()}
    return {
        "empty": b'{"keys":[]}',
        "no-keys": b"{}",
        "not-json": b"<html>",
        "nested": b'{"keys":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        "twice": json.dumps({"keys": [jwks[0], jwks[0]]}).encode(),
        "doubled-members": b'{"keys":[],' + json.dumps({"keys": jwks}).encode()[1:],
        "private": json.dumps({"keys": [private]}).encode(),
        "weak": json.dumps({"keys": [weak]}).encode(),
        "for-encryption": json.dumps({"keys": [{**one, "use": "enc"} for one in jwks]}).encode(),
        "too-many": json.dumps({"keys": [{**jwks[0], "kid": str(n)} for n in range(101)]}).encode(),
    }.get(how)


def make_handler(state):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            state.fetches += 1
            how = state.how
            good = json.dumps({"keys": state.jwks}).encode()
            if how == "hanging":
                time.sleep(30)
                return
            if how == "redirecting" and self.path == "/keys":
                self.answer(b"", status=302, location="/elsewhere")
                return
            if how == "failing":
                self.answer(b"{}", status=503)
                return
            if how == "wrong-type":
                self.answer(good, content_type="text/html")
                return
            if how == "encoded":
                self.answer(good, encoding="gzip")
                return
            if how == "huge":
                self.answer(b'{"keys":[' + b" " * (1 << 20) + b"]}")
                return
            if how == "dripping":
                self.drip(good)
                return
            self.answer(lie(how, state.jwks) or good)

        def answer(self, body, *, status=200, content_type="application/json", location="", encoding=""):
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            if location:
                self.send_header("location", location)
            if encoding:
                self.send_header("content-encoding", encoding)
            self.end_headers()
            self.wfile.write(body)

        def drip(self, body):
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.2)

    return Handler


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that left, or did not trust the certificate


def main(folder):
    state = State()
    server = QuietServer(("127.0.0.1", 0), make_handler(state))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "issuer.pem", folder / "issuer.key")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.server_port}), flush=True)
    for line in sys.stdin:
        what = json.loads(line)
        answer = {}
        match what.pop("do"):
            case "sign":
                answer = {"token": state.sign(**what)}
            case "rotate":
                state.rotate(**what)
            case "behave":
                state.how = what["how"]
            case "kids":
                answer = {alg: kid for alg, (kid, _) in state.signing.items()}
            case "count":
                answer = {"fetches": state.fetches}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
