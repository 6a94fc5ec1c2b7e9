"""Write the tables of docs/numbers.md from a run: `numbers_table.py FILE.json`, made by `delivery.py --json`.

They stand between `<!-- delivery -->` and `<!-- delivery ends -->`. Figures come first, then how many
requests of each kind everyone answers, then the stages of a request.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delivery import ALL, ANSWERS, DEPENDENCY, HOSTED, NGINX, OURS, READS, STAGES_OF, STATIC
from stages import REST, STAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PAGE = Path(__file__).parents[2] / "docs/numbers.md"
BEGIN, END = "<!-- delivery -->", "<!-- delivery ends -->"
NONE = "-"
WANTED = {
    "varied_vs_nginx_auth_request": "1.0, at least 0.85",
    "traced_vs_nginx_auth_request": "0.8, at least 0.6",
    "varied_p99_vs_nginx_auth_request": "at most 1.2",
    "range_vs_nginx_auth_request": "0.7, at least 0.5",
    "head_vs_nginx_auth_request": "0.7, at least 0.5",
    "link_vs_nginx_auth_request": "0.7, at least 0.5",
    "slowest_route_vs_hosted_shape": "1.0",
    "small_vs_nginx_static": "0.5",
    "small_vs_hosted_shape": "8",
    "large_cpu_vs_nginx": "at most 0.9",
    "ranges_cpu_vs_nginx": "at most 1.0",
    "mixed_p99_vs_nginx": "at most 1.0",
    "workers_4_vs_1": "1.0",
    "idle_worker_mb": "at most 80",
    "memory_ratio_1000_downloads": "at most 1.1",
}
MEANINGS = {
    "varied_vs_nginx_auth_request": "whole files, the headers of four clients: requests a second over nginx "
    "`auth_request` with a second nginx",
    "traced_vs_nginx_auth_request": "the same, each with a trace of its own",
    "varied_p99_vs_nginx_auth_request": "p99 of whole files over that of nginx `auth_request`",
    "range_vs_nginx_auth_request": "a range of 1,000 bytes of these files, requests a second",
    "head_vs_nginx_auth_request": "HEAD of these files",
    "link_vs_nginx_auth_request": "these files by signed link",
    "slowest_route_vs_hosted_shape": "the slowest of all other answers over the hosted guard's shape "
    "(FastAPI middleware, TTL cache), which has the same answers in memory",
    "small_vs_nginx_static": "whole files over nginx without a guard",
    "small_vs_hosted_shape": "whole files over the hosted guard's shape",
    "large_cpu_vs_nginx": "1 GB: server CPU seconds per GB over nginx `sendfile`",
    "ranges_cpu_vs_nginx": "the same for ranges on connections of their own: the dearer of eight of 16 MiB "
    "in parallel, and of 64 in parallel of a package",
    "mixed_p99_vs_nginx": "p99 of whole small files beside four large ones, over nginx static",
    "workers_4_vs_1": "four workers over one, on two cores",
    "idle_worker_mb": "memory of an idle worker, MB",
    "memory_ratio_1000_downloads": "memory with 1,000 downloads of 1 GB under way, over before",
}


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """All tables. What was not measured has a dash."""
    by_name = {row["name"]: row for row in rows}
    return "\n\n".join("\n".join(lines) for lines in (_figures(by_name), _answers(by_name), _stages(by_name)))


def _figures(rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield from _head("figure", "measured", "least and most of the rounds", "wanted", "what")
    for name, wanted in WANTED.items():
        row = rows.get(name, {})
        spread = f"{row['min']:.2f} to {row['max']:.2f}" if "min" in row else NONE
        yield _line(f"`{name}`", _number(row, ".2f"), spread, wanted, MEANINGS[name])


def _answers(rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    rivals = {NGINX: "nginx `auth_request`", STATIC: "nginx static", HOSTED: "hosted shape"}
    rivals[DEPENDENCY] = "FastAPI dependency"
    yield from _head("answer, requests a second", "Cachegate", "p50, p99 ms", *rivals.values())
    for name in (one for one in ALL if one in (*READS, *ANSWERS)):
        rate, p99 = rows.get(f"{name}_{OURS}_per_second"), rows.get(f"{name}_{OURS}_p99_ms")
        if rate is None or p99 is None:
            continue
        title = rate["what"].partition(": ")[2].partition(";")[0]
        [p50] = re.findall(r"p50 ([\d.]+) ms", p99["what"])
        others = [_number(rows.get(f"{name}_{rival}_per_second", {}), ",.0f") for rival in rivals]
        yield _line(f"{name}: {title}", _number(rate, ",.0f"), f"{p50}, {p99['value']:.2f}", *others)


def _stages(rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    named = (*reversed(STAGES), REST)
    yield from _head("microseconds of the worker", "all", *named)
    for name in STAGES_OF:
        whole = rows.get(f"stages_{name}_us")
        if whole is not None:
            found = [rows[f"stages_{name}_{stage.replace(' ', '_')}_us"] for stage in named]
            yield _line(name, *(_number(row, ".1f") for row in (whole, *found)))


def _head(*titles: str) -> Iterator[str]:
    yield _line(*titles)
    yield "|" + "---|" * len(titles)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(row: dict[str, Any], form: str) -> str:
    return format(row["value"], form) if "value" in row else NONE


def replaced(page: str, between: str) -> str:
    """The page with other tables."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{PAGE.name} has no {BEGIN} with {END} after it: put them back")
    return f"{before}{BEGIN}\n\n{between}\n\n{END}{after}"


def main(arguments: Iterable[str] | None = None) -> int:
    """Read the run, write the page."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("file", type=Path, help="what `delivery.py --json` wrote")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    rows = json.loads(chosen.file.read_text())["rows"]
    PAGE.write_text(replaced(PAGE.read_text(), tables(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
