"""One order for the records of all chains of a node, and a search that need not read them all.

`indexer.py` follows the segments and keeps the order in `journal.py`'s file; `reader.py` reads pages behind a
cursor (`cursor.py`), and searches. All of it can be made anew from the segments, and nothing that records a
decision waits for it.
"""

from gateway.audit.index.cursor import Cursor, encode_cursor, parse_cursor
from gateway.audit.index.indexer import Indexer
from gateway.audit.index.reader import IndexedRecord, IndexPage, IndexReader

__all__ = [
    "Cursor",
    "IndexPage",
    "IndexReader",
    "IndexedRecord",
    "Indexer",
    "encode_cursor",
    "parse_cursor",
]
