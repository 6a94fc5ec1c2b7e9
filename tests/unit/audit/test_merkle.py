"""The trees are those of RFC 6962: its own recursive definition gives the same roots and paths."""

from __future__ import annotations

from hashlib import sha256

import pytest

from gateway.audit.merkle import EMPTY_ROOT, path_of, root_by, root_of

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 100, 999, 1000)


def entries_of(size):
    return [sha256(b"%d" % number).digest() for number in range(size)]


def _largest_power_below(size):
    return 1 << (size - 1).bit_length() - 1


def recursive_root(entries):
    """MTH of RFC 6962, 2.1."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    middle = _largest_power_below(len(entries))
    return sha256(b"\x01" + recursive_root(entries[:middle]) + recursive_root(entries[middle:])).digest()


def recursive_path(index, entries):
    """PATH of RFC 6962, 2.1.1."""
    if len(entries) == 1:
        return []
    middle = _largest_power_below(len(entries))
    if index < middle:
        return [*recursive_path(index, entries[:middle]), recursive_root(entries[middle:])]
    return [*recursive_path(index - middle, entries[middle:]), recursive_root(entries[:middle])]


@pytest.mark.parametrize("size", SIZES)
def test_the_root_is_that_of_the_rfc(size):
    assert root_of(entries_of(size)) == recursive_root(entries_of(size))


@pytest.mark.parametrize("size", SIZES)
def test_every_path_is_that_of_the_rfc_and_leads_to_the_root_from_its_own_place_only(size):
    entries = entries_of(size)
    root = root_of(entries)
    for index in {0, 1, size // 2, size - 2, size - 1} & set(range(size)):
        path = path_of(entries, index)
        assert path == recursive_path(index, entries)
        assert root_by(entries[index], index, size, path) == root
        other = (index + 1) % size
        if size > 1:
            assert root_by(entries[other], index, size, path) != root


def test_a_tree_without_entries_has_the_root_of_the_rfc():
    assert root_of([]) == EMPTY_ROOT == sha256(b"").digest()


@pytest.mark.parametrize("size", [2, 3, 8, 1000])
def test_a_path_that_is_longer_or_shorter_is_refused(size):
    entries = entries_of(size)
    path = path_of(entries, 1)
    for wrong in (path[:-1], [*path, path[-1]]):
        with pytest.raises(ValueError, match="path is too"):
            root_by(entries[1], 1, size, wrong)


def test_an_inner_node_is_not_an_entry():
    entries = entries_of(4)
    left, right = (root_of(entries[at : at + 2]) for at in (0, 2))
    assert root_by(left, 0, 2, [right]) != root_of(entries)


@pytest.mark.parametrize("index", [-1, 4, 5])
def test_a_place_outside_of_the_tree_is_refused(index):
    with pytest.raises(ValueError, match="no place"):
        root_by(entries_of(4)[0], index, 4, [])
