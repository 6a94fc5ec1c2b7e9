"""A client of the admin API, for commands that go through a running gateway.

It sends the key to the one place that the operator named, follows no redirect, and asks no proxy of the
environment. Refusals become the errors that a command on the state folder would raise, in the words of the
gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from gateway.model.errors import BadNameError, Conflict, Misconfigured, Unavailable
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATH = "/admin/v1"
SECONDS = 30.0  # a change waits for the workers, for a few seconds at most
PAGE = 1_000


class AdminClient(msgspec.Struct, frozen=True):
    """Asks the admin API below one URL, with one key, which is never printed (I8)."""

    url: str
    key: str

    def __repr__(self) -> str:
        return shown(self, hidden=("key",))

    def get(self, path: str, **query: str) -> Any:
        """Read something."""
        return self._ask("GET", path, None, query)

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Ask something that does not fit into a query. Nothing is changed."""
        return self._ask("POST", path, body, {})

    def each(self, path: str, *, start: str | None = None, **query: str) -> Iterator[dict[str, Any]]:
        """All items of a list, page by page, those after `start`."""
        after: dict[str, str] = {} if start is None else {"after": start}
        while True:
            page = self.get(path, limit=str(PAGE), **query, **after)
            yield from page["items"]
            if page["after"] is None:
                return
            after = {"after": page["after"]}

    def change(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        *,
        wait: bool = True,
        seconds: float = SECONDS,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Change something, whatever its state is; what it came to."""
        asked = {**(query or {}), **({} if wait else {"wait": "false"})}
        changed: dict[str, Any] = self._ask(method, path, body, asked, seconds)
        return changed

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        query: dict[str, str],
        seconds: float = SECONDS,
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        if method == "PATCH":
            headers["If-Match"] = "*"
        try:
            # Loading the authorities takes as long as a whole command: only https asks them anything.
            verify = httpx.URL(self.url).scheme != "http"  # also of HTTPS://, in any letters
            with httpx.Client(
                timeout=seconds, trust_env=False, follow_redirects=False, verify=verify
            ) as client:
                answer = client.request(
                    method,
                    self.url.rstrip("/") + PATH + path,
                    params=query,
                    json=body,
                    headers=headers,
                )
                document = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            what = type(error).__name__  # an error of the client may quote what it was given
            raise Unavailable("gateway", f"{self.url} does not answer as an admin API ({what})") from error
        if answer.is_success:
            return document
        raise _error_of(answer.status_code, document)


def _names_nothing(problem: dict[str, Any]) -> bool:
    """Whether a request named what is not there: for a command that is no mistake of usage."""
    return any(str(one.get("detail", "")).startswith("there is no ") for one in problem.get("errors", ()))


def _error_of(status: int, document: Any) -> Exception:
    problem = document if isinstance(document, dict) else {}
    told = [str(problem.get("detail", f"status {status}"))]
    told += [f"{one.get('pointer', '')}: {one.get('detail', '')}" for one in problem.get("errors", ())]
    text = " ".join(told)
    match status:
        case 401 | 403:
            return Misconfigured("CACHEGATE_ADMIN_KEY", text)
        case 400 | 422 if not _names_nothing(problem):
            return BadNameError(text)
        case 404 | 409 | 412 | 413 | 422 | 428:
            return Conflict(text)
        case _:
            return Unavailable("gateway", text)
