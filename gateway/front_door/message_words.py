"""Which text of an inference server may be told to a tenant: only words that say nothing about others.

Messages of the server hold keys, ids of models, paths, signed URLs and addresses, in forms that nobody can
list. So the text is not searched for what must not pass: only what is known to be harmless passes. That is
the vocabulary of the server's own messages (inference 1.8.3, pydantic), small numbers, names of the
request's own members, and the model that the request names. Everything else is replaced by `[...]`.

Non-goal: to keep the grammar of a message. A caller who needs all of it asks the operator, by the record's
id.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_MESSAGE_CHARACTERS = 4096  # of the server's text: a longer one is dropped unread
MAX_SHOWN_CHARACTERS = 300
MAX_NUMBER_DIGITS = 5
MAX_NUMBERS = 8  # more could be the bytes of a key
HIDDEN = "[...]"

_PUNCTUATION = "'\"`()[]{}<>.,:;!?-"
_NAME = re.compile(r"[A-Za-z][A-Za-z_]{0,39}")

_WORDS = frozenset(
    """
    a above absolute accept accepted access active add after again all allowed alone already also an and
    another any api are argument arguments array artifacts as at attempt attempted attempting attribute
    authentication authorization available base base64 batch batched be because been before being below best
    between binary body boolean both broken but by bytes cached can can't cannot cause caused change changed
    changing character characters check class classification client coordinates compared confidence config
    configuration configured connection connect contact contain contained contains content context
    conversion convert correct could create credits current currently data date datetime debug decode
    decoded decoding default dependency deployment depth describe description detection device dictionary
    did didn't different dimensions directory disable disabled do does doesn't don't download downloaded
    downloading due during either embed embedding embeddings empty enable enabled encode encoded encoding
    end endpoint enough entry environment equal equals error errors exactly exceed exceeded exceeds
    exception execution exist existing exists expected explicit explicitly extra fail failed failure false
    few field fields file files finite first float for forbidden form format found from full function
    generate generated get given got greater handle has have header headers height help high how http https
    id identify identifier if image images implemented in include incorrect inference input inputs inside
    instance instead integer internal into invalid is issue it items its json key keypoint keypoints keys
    keyword label labels large least length less like limit list lists load loaded loading local long longer
    lost lower make malformed many map mask masks match matches max maximum may member memory message method
    min minimum mismatch missing mode model models more most multiple multipart must name named names near
    negative no non non-empty none not nothing null number numbers object objects of off offline on once one
    only open operation or order original other out output over package packages page parameter parameters
    parse parsing part pass passed path per permission pixel pixels please point points positive possible
    prediction predictions preprocessing problem process processing prompt prompts properly provide provided
    provider providing python range ratio raw reach read reading reason received recognised recognized
    refused register registered registry reject rejected remove removed request requested requests require
    required requirement requires resolution resolve resource response result retrieve returned retry route
    run running runtime same schema scopes second segment segmentation send sending sent serialize served
    server service set shape should single size small smaller so some source specified specify start started
    status step stop string strip style subject such support supported system tag task temporarily tensor
    text than that the their them then there this threshold thresholds through time timeout to together too
    tool true try trying tuple type types unable unauthorized under unexpected unique unknown unsupported up
    upper url usage use used user uses using usually valid validate validation value values variable variant
    version versions via video wait want was way we weight weights were when where whether which while whole
    width with within without would wrong yet you your zero
    """.split()  # noqa: SIM905 -- five hundred words as a list would fill this file
)


def plain_message(text: str, *, names: Collection[str], fields: Collection[str]) -> str | None:
    """The text with nothing in it but harmless words, `names` and `fields`; None where too little is left.

    `names` are texts of the caller's own, to be shown as they are. `fields` are names of members of its body.
    """
    if len(text) > MAX_MESSAGE_CHARACTERS:
        return None
    if sum(_bare(token).isdigit() for token in text.split()) > MAX_NUMBERS:
        return None
    shown: list[str] = []
    count = length = 0
    for token in text.split():
        piece = token if _is_plain(_bare(token), token, names, fields) else HIDDEN
        if piece == HIDDEN and shown[-1:] == [HIDDEN]:
            continue
        length += len(piece) + 1
        if length > MAX_SHOWN_CHARACTERS:
            break
        shown.append(piece)
        count += piece != HIDDEN
    return " ".join(shown) if count * 2 > len(shown) else None


def _bare(token: str) -> str:
    return token.strip(_PUNCTUATION)


def _is_plain(word: str, token: str, names: Collection[str], fields: Collection[str]) -> bool:
    if len(token) - len(word) > 4:  # noqa: PLR2004 -- quotes and a full stop; more is no punctuation
        return False
    if word in names:
        return True
    if word in fields:
        return _NAME.fullmatch(word) is not None
    if word.isascii() and word.isdigit():
        return len(word) <= MAX_NUMBER_DIGITS
    # Other mixtures of cases could spell a key in letters of two sizes.
    return word.lower() in _WORDS and word in {word.lower(), word.upper(), word.capitalize()}
