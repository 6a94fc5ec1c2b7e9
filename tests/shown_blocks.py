"""Blocks of documents that are run, and the comparison of what they print with what is shown.

    <!-- run -->            a mark, then a block of sh or Python, and what it prints, if it prints anything

Blocks with `tour` and `run` are run by `tests/architecture`, those with `server` by `tests/server`.
"""

from __future__ import annotations

import re
from difflib import ndiff

BLOCK = re.compile(r"<!-- (tour|run|server) -->\n```(sh|python)\n(.*?)```\n(?:```text\n(.*?)```)?", re.DOTALL)
"""A block that is run, and the output that is shown of it, if any."""


def blocks_of(text: str, *marks: str) -> list[tuple[str, str]]:
    """The blocks of a page with these marks, as shell, each with the output that is shown."""
    found = []
    for mark, language, script, shown in BLOCK.findall(text):
        shell = script if language == "sh" else f"python - <<'END_OF_BLOCK'\n{script}END_OF_BLOCK\n"
        if mark in marks:
            found.append((shell, shown))
    return found


VARYING = (
    (r"cg_[a-z]{2,8}_\w+…?", "<token>"),
    (r"\bkey_[0-9A-Za-z]{12}\b", "<key>"),
    (r"\bten_[0-9A-Za-z]{12}\b", "<tenant record>"),
    (r"\brem_[0-9a-f]{18}\b", "<removal>"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<record>"),
    (r"\b[\w.-]+\.[0-9a-f]{12}-[0-9a-f]{8}\b", "<chain>"),
    (r"\b00-[0-9a-f]{32}-[0-9a-f]{16}-01\b", "<trace>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", "<time>"),
    (r"\b\d{4}-\d\d-\d\d\b", "<day>"),
    (r"^date: .*", "date: <date>"),
    (r"\b[0-9.]+ ms\b", "<ms>"),
    (r"\bpublic key [0-9a-f]{32}\b", "public key <fingerprint>"),
    (r"\bcli:[\w.-]+", "cli:<user>"),
    (r"\bline \d+", "line <n>"),
    (r"\bof the node [\w.-]+ in\b", "of the node <node> in"),
    (r" +\(not proven\)$", ""),  # until the next signed head, which comes within ten seconds
    (r"^proven +(yes|no): .*", "proven <yes or no>"),
    (r"\bgeneration( +|\":)\d+", "generation <n>"),  # the canary and pins raise it meanwhile
    (r"\s+", " "),
    (r"^(there now|seen last) [0-9a-f]{32} \d+", r"\1 <history> <n>"),
    (r"^<chain>( \d+){3} ", "<chain> <n> "),
    (r"^\d+ records exported", "<n> records exported"),
    (r"\bSearched \d+ chains\b", "Searched <n> chains"),
    (r"\d+ records (in \d+ chains)", r"<n> records \1"),
)
"""What differs each time: ids, times, what was due meanwhile, where it runs and who runs it.

All else is compared, and nothing may be there that is not documented.
"""


def lines_of(text: str, folder: str) -> list[str]:
    """The lines of an output with what varies taken out; empty ones left out."""
    text = text.replace(folder, "/tmp/tour").replace("}{", "}\n{").replace("\r", "")
    found = []
    for line in text.splitlines():
        masked = line
        for pattern, word in VARYING:
            masked = re.sub(pattern, word, masked)
        found.append(masked.strip())
    return [line for line in found if line]


def difference(documented: list[str], real: list[str]) -> list[str]:
    """What is documented and does not come, and what comes and is not documented: headers, lines, fields."""
    return [line for line in ndiff(documented, real) if line[0] in "-+"]
