"""Take secrets out of text that people will read: log lines, error messages, command output.

This is the last net, not the first: code that holds a secret does not put it into text (I8). It is
generous on purpose. Half a token, a token with a typo and another vendor's key after `api_key=` are
all somebody's secret; a word too many that turns into `[redacted]` costs nothing.
"""

from __future__ import annotations

import re

REDACTED = "[redacted]"

# Every alternative is a fixed beginning and one run of characters, so the work is linear in the text.
# The word before `=` or `:` stays: it tells the reader what was there.
_SECRETS = re.compile(
    r"""
      (?P<token> cg_[a-z]{2,8}_ ) [0-9a-z]+                       # ours, whole or cut short
    | (?P<scheme> \b(?:bearer|basic)[ \t]+ ) [^\s"',;]+
    | (?P<header> \b(?:x-)?api[_-]?key ["']? [ \t]* [:=] [ \t]* ["']? ) [^\s&;,"']+
    | (?P<parameter> \b(?:key|token|access_token|sig|signature)= ) [^\s&;,"']+
    | \beyJ[0-9a-z_-]{8,}\.[0-9a-z_-]+\.[0-9a-z_-]*               # a JSON web token
    """,
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)


def redact(text: str) -> str:
    """The text, with everything that looks like a token, key or signature taken out."""
    return _SECRETS.sub(lambda match: f"{match[match.lastgroup] if match.lastgroup else ''}{REDACTED}", text)
