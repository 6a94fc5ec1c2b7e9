"""Find lines and columns in a Cedar text, for error messages.

Cedar's Python binding says what it refuses but not where. Two facts give the location back. Policies are
numbered in the order of the text, so the statement that a message is about can be found by counting. And
Cedar parses from left to right: the shortest prefix of a text that is refused for another reason than being
unfinished ends with the offending token.

Not a parser: it knows strings, comments and the end of a statement, and checks nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
      | (?P<token>"(?:\\.|[^"\\])*"      # a string
                | [A-Za-z_][A-Za-z0-9_]* # a word
                | [0-9]+
                | ::|==|!=|<=|>=|&&|\|\|
                | .)                     # anything else, one character at a time""",
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r"`([^`]+)`|'([^']+)'")
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")

MAX_NESTING = 100  # as deep as Cedar's own typed syntax tree goes; 1000 overflow the stack
MAX_STATEMENT_TOKENS = 2000  # chains recurse too: 5000 links of `if` or `has` overflow the stack

MAX_COMMENT_LINES = 20  # above a rule; longer comments are not about one rule

_STRING = re.compile(r'"[^"]*"')
_UNFINISHED = "unexpected end of input"


class Token(msgspec.Struct, frozen=True, gc=False):
    """A word, string or punctuation sign, and where it starts and ends."""

    text: str
    start: int
    end: int


class SourcePosition(msgspec.Struct, frozen=True, gc=False):
    """A line and a column, both from 1."""

    line: int
    column: int


def tokens(text: str) -> list[Token]:
    """The tokens of the text, without blanks and comments."""
    return [
        Token(found["token"], found.start(), found.end())
        for found in _TOKEN.finditer(text)
        if found["token"] is not None
    ]


def place_at(text: str, offset: int) -> SourcePosition:
    """The line and column of a character."""
    line_start = text.rfind("\n", 0, offset) + 1
    return SourcePosition(text.count("\n", 0, offset) + 1, offset - line_start + 1)


def statements(text: str) -> list[list[Token]]:
    """The policies of a text, each as its tokens; text after the last semicolon counts as one more."""
    found: list[list[Token]] = [[]]
    for token in tokens(text):
        found[-1].append(token)
        if token.text == ";":
            found.append([])
    return [statement for statement in found if statement]


class RuleText(msgspec.Struct, frozen=True, kw_only=True):
    """One rule as it is written: the line it starts on, its text, and its tokens.

    `words` are the tokens without blanks and comments: two rules with the same words are the same rule.
    `comment` is the text of the comments directly above it.
    """

    line: int
    text: str
    words: tuple[str, ...]
    comment: str


def rule_texts(text: str) -> list[RuleText]:
    """The rules of a text that parses, in order: the index of each is the number that Cedar gives it."""
    found: list[RuleText] = []
    line, counted_to = 1, 0
    for statement in statements(text):
        start, end = statement[0].start, statement[-1].end
        line += text.count("\n", counted_to, start)
        counted_to = start
        words = tuple(token.text for token in statement)
        comment = _comment_above(text, start)
        found.append(RuleText(line=line, text=text[start:end], words=words, comment=comment))
    return found


def _comment_above(text: str, start: int) -> str:
    """The comment on the lines directly above an offset, as one line."""
    lines: list[str] = []
    end = text.rfind("\n", 0, start)
    while end > 0 and len(lines) < MAX_COMMENT_LINES:
        begin = text.rfind("\n", 0, end) + 1
        line = text[begin:end].strip()
        if not line.startswith("//"):
            break
        lines.append(line.removeprefix("//").strip())
        end = begin - 1
    return " ".join(reversed(lines))


def find_excess(text: str) -> str | None:
    """Why a text is nested too deep or too long to be passed to Cedar; None when it is not.

    Cedar's parser and evaluator recurse without a bound of their own: a thousand nested brackets kill the
    process, in every worker that reads the set.
    """
    depth = length = 0
    for token in tokens(text):
        length = 0 if token.text == ";" else length + 1
        if token.text in _OPENING:
            depth += 1
        elif token.text in _CLOSING:
            depth -= 1
        if depth > MAX_NESTING:
            return f"brackets within brackets, more than {MAX_NESTING} deep"
        if length > MAX_STATEMENT_TOKENS:
            return f"a statement of more than {MAX_STATEMENT_TOKENS} words and signs"
    return None


def places_of_statements(text: str) -> list[SourcePosition]:
    """Where each policy of a text starts, by its number."""
    return [place_at(text, statement[0].start) for statement in statements(text)]


def find_id_at(text: str, place: SourcePosition) -> str | None:
    """The @id of the policy at this place, as it is written; works for texts that do not parse, too."""
    found: str | None = None
    for statement in statements(text):
        start = place_at(text, statement[0].start)
        if (start.line, start.column) > (place.line, place.column):
            break
        found = _written_id(statement)
    return found


def places_of_complaints(text: str, complaints: Iterable[tuple[int, str]]) -> list[SourcePosition]:
    """The place of each message about a policy (by number): the token it names, or the policy's start."""
    found = statements(text)
    return [
        place_at(text, (_find_named(found[number], complaint) or found[number][0]).start)
        if number < len(found)
        else SourcePosition(1, 1)
        for number, complaint in complaints
    ]


def place_of_syntax_error(text: str, find_error: Callable[[str], str | None]) -> SourcePosition:
    """Where parsing fails. `find_error` returns the error of a text, or None.

    Errors are not monotonic in the length of a prefix (it may end in an unfinished statement, which is not
    the error searched for), so only errors other than being unfinished count. The shortest prefix with one is
    found by bisection: a prefix with such an error keeps it however the text continues.
    """
    found = tokens(text)
    low, high = 0, len(found)
    while low < high:
        middle = (low + high) // 2
        error = find_error(text[: found[middle].end])
        if error is None or _UNFINISHED in error:
            low = middle + 1
        else:
            high = middle
    if low == len(found):
        return place_at(text, len(text.rstrip()))
    complaint = find_error(text[: found[low].end]) or ""
    if found[low].text != ";" or "`;`" in complaint:
        return place_at(text, found[low].start)
    # An error at the end of a statement was caused earlier in it: a name, a literal, an annotation.
    statement = next(each for each in statements(text) if each[-1].end >= found[low].end)
    return place_at(text, (_find_named(statement, complaint) or statement[0]).start)


def place_of_policy_error(text: str, find_error: Callable[[str], str | None]) -> SourcePosition:
    """Where parsing a text of policies fails: in the first policy that does not parse by itself.

    Cedar reports errors in a policy's names and literals, unlike those in its form, only for a complete text,
    and then for any policy in it: an unfinished policy after it would hide which one is wrong.
    """
    for statement in statements(text):
        start, end = statement[0].start, statement[-1].end
        piece = text[start:end]
        if find_error(piece) is not None:
            inside, first = place_of_syntax_error(piece, find_error), place_at(text, start)
            shift = first.column - 1 if inside.line == 1 else 0
            return SourcePosition(first.line + inside.line - 1, inside.column + shift)
    return place_of_syntax_error(text, find_error)


def _written_id(statement: list[Token]) -> str | None:
    """The text in `@id("...")`, without its quotes."""
    texts = [token.text for token in statement]
    for number in range(len(texts) - 3):
        if texts[number : number + 3] == ["@", "id", "("] and _STRING.fullmatch(texts[number + 3]):
            return texts[number + 3][1:-1]
    return None


def _find_named(statement: list[Token], complaint: str) -> Token | None:
    """The first token of a statement that a message names, in quotes or as its last word."""
    quotes = [backtick or single for backtick, single in _QUOTED.findall(complaint)]
    names = [name for quoted in quotes for name in (quoted, *_STRING.findall(quoted))]
    names += [complaint.rpartition(" ")[2], complaint.rpartition(" ")[2].removeprefix("@")]
    return next((token for name in names for token in statement if token.text == name), None)
