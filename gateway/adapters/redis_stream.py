"""The audit stream in Redis: appended to by every node, within a cap of bytes, for consumer groups to read.

    {cachegate}:audit:stream     entries: the record's id, its node, after (the cursor in front of it), record
                                 (its line)
    {cachegate}:audit:positions  how far each node's log is in it, and its size in bytes
    {cachegate}:audit:lost       per group: from which cursors it has lost entries, and its newest mark

The same server holds the facts, so the stream must not fill it. Before a batch is appended, the oldest
entries are removed until the batch fits into the cap, and into what leaves a quarter of `maxmemory` free;
what is pending in groups counts as well. Where not even an empty stream leaves that, nothing is appended. A
script does a bounded amount of work, since nothing else is answered meanwhile.

A group that had not read or not acknowledged what is removed gets a mark: an entry with the fields `lost`
(the group) and `from` (a cursor per node), from which the feed has all that it lost. A mark that is removed
unread is appended again. A group that never reads holds nothing: its mark is all there is of it.

The position is stored by the script that appends, and compared with the position that the node expects. After
a failover to a server that lacks the last batches, the node goes on where that server is.

It is outside of the facts: no history is checked, and nothing here is a fact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.adapters.redis_errors import translated
from gateway.adapters.redis_url import RedisLimits, make_client, parse_redis_url
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

STREAM = b"{cachegate}:audit:stream"
POSITIONS = b"{cachegate}:audit:positions"
LOST = b"{cachegate}:audit:lost"
MOST_GROUPS = 64
MOST_REMOVED = 1000  # entries by one run of the script; fewer with groups, as each looks at all of them
OVERHEAD_BYTES = 160  # of an entry beside its values: names, listpack, index
PENDING_BYTES = 224  # of an entry that was delivered to a consumer and not acknowledged
GROUP_BYTES = 2048
RIGHTS = ("+exists", "+xack", "+xadd", "+xinfo|groups", "+xlen", "+xpending", "+xrange", "+xtrim")
"""What the user of the gateway needs beside its other rights."""

_LIMITS = RedisLimits(
    connect_seconds=5.0, operation_seconds=10.0, pool_connections=1, transaction_seconds=15.0
)

APPEND = b"""#!lua flags=allow-oom
local stream, positions, lost = KEYS[1], KEYS[2], KEYS[3]
local node, expected, position = ARGV[1], ARGV[2], ARGV[3]
local cap, is_forced = tonumber(ARGV[4]), ARGV[5] == '1'
local most_removed, most_groups = tonumber(ARGV[6]), tonumber(ARGV[7])
local overhead, per_pending, per_group = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local FIRST = 11

local stored = redis.call('HGET', positions, 'node:' .. node)
if stored and stored ~= expected and not is_forced then return {'moved', stored} end

local function parsed(id)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    return tonumber(ms), tonumber(seq)
end
local function is_behind(one, other)
    local a, b = parsed(one)
    local c, d = parsed(other)
    return a > c or (a == c and b > d)
end

local bytes, length = tonumber(redis.call('HGET', positions, 'bytes') or '0'), redis.call('XLEN', stream)
if length == 0 then bytes = 0 end
local groups, held = {}, 0
if redis.call('EXISTS', stream) == 1 then
    for _, raw in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
        local group = {}
        for i = 1, #raw, 2 do group[raw[i]] = raw[i + 1] end
        local pending = group['pending']
        groups[#groups + 1] = {name = group['name'], read = group['last-delivered-id'], pending = pending}
        held = held + per_group + pending * per_pending
    end
end
if #groups > most_groups then return {'groups', #groups} end
-- What is removed is looked at for each group.
most_removed = math.ceil(most_removed / (1 + #groups / 4))

local incoming = 0
for i = FIRST, #ARGV, 3 do incoming = incoming + #ARGV[i] + #ARGV[i + 1] + #ARGV[i + 2] + #node + overhead end
local info = redis.call('INFO', 'memory')
local used = tonumber(string.match(info, 'used_memory:(%d+)') or '0')
local maximum = tonumber(string.match(info, 'maxmemory:(%d+)') or '0')
local allowed = cap
if maximum > 0 then allowed = math.min(cap, bytes + held + maximum * 3 / 4 - used) end

local surplus, removed, last, has_removed = bytes + held + incoming - allowed, {}, nil, false
local held_by_each = length > 0 and held / length or 0
while surplus > 0 and #removed < most_removed do
    local from = last and ('(' .. last) or '-'
    local found = redis.call('XRANGE', stream, from, '+', 'COUNT', math.min(100, most_removed - #removed))
    if #found == 0 then break end
    for _, entry in ipairs(found) do
        local fields, size = {}, overhead
        for i = 1, #entry[2], 2 do
            fields[entry[2][i]] = entry[2][i + 1]
            size = size + #entry[2][i + 1]
        end
        local ms, seq = parsed(entry[1])
        removed[#removed + 1] = {
            id = entry[1], ms = ms, seq = seq, node = fields['node'], after = fields['after']
        }
        has_removed = has_removed or fields['after'] ~= nil
        last, bytes, surplus = entry[1], bytes - size, surplus - size - held_by_each
        if surplus <= 0 or #removed >= most_removed then break end
    end
end

local told = 0
if last then
    for _, group in ipairs(groups) do
        local pending = {}
        while group.pending > 0 do
            local found = redis.call('XPENDING', stream, group.name, '-', last, 500)
            if #found == 0 then break end
            local ids = {}
            for i, one in ipairs(found) do ids[i] = one[1]; pending[one[1]] = true end
            redis.call('XACK', stream, group.name, unpack(ids))
        end
        local known = redis.call('HGET', lost, group.name)
        local state = known and cjson.decode(known) or {from = {}, mark = ''}
        local is_told = state.mark ~= '' and not is_behind(state.mark, group.read) and not pending[state.mark]
        local is_gone = state.mark ~= '' and not is_told and not is_behind(state.mark, last)
        if is_told then state = {from = {}, mark = ''} end
        local is_new = is_gone
        local read_ms, read_seq = parsed(group.read)
        for _, entry in ipairs(removed) do
            local is_unread = entry.ms > read_ms or (entry.ms == read_ms and entry.seq > read_seq)
            if entry.after and (is_unread or pending[entry.id]) then
                told = told + 1
                if not state.from[entry.node] then
                    state.from[entry.node], is_new = entry.after, true
                end
            end
        end
        if is_new then
            local from = cjson.encode(state.from)
            group.mark = {from = from, state = state}
            bytes = bytes + #group.name + #from + overhead
        elseif is_told then
            redis.call('HDEL', lost, group.name)
        end
    end
    local ms, seq = string.match(last, '^(%d+)-(%d+)$')
    redis.call('XTRIM', stream, 'MINID', '=', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
    for _, group in ipairs(groups) do
        if group.mark then
            local mark = group.mark
            mark.state.mark = redis.call('XADD', stream, '*', 'lost', group.name, 'from', mark.from)
            redis.call('HSET', lost, group.name, cjson.encode(mark.state))
        end
    end
end

local answer = 'ok'
if surplus > 0 then
    answer = has_removed and 'more' or 'full'
else
    for i = FIRST, #ARGV, 3 do
        local id, after, record = ARGV[i], ARGV[i + 1], ARGV[i + 2]
        redis.call('XADD', stream, '*', 'id', id, 'node', node, 'after', after, 'record', record)
    end
    bytes = bytes + incoming
    redis.call('HSET', positions, 'node:' .. node, position)
end
redis.call('HSET', positions, 'bytes', string.format('%.0f', bytes))
return {answer, told, string.format('%.0f', bytes)}
"""
"""Appends records, or says why it did not: `moved`, `groups`, `full`; `more` is to be called again.

It may run where the server is out of memory: then it removes, and notes the marks of what it removes.
"""


class Appended(msgspec.Struct, frozen=True):
    """What an attempt to append came to.

    `moved_to`: nothing was appended, as the server has the log of this node up to another cursor.
    `lost`: entries that were removed before groups had read or acknowledged them, counted by group.
    """

    moved_to: str | None = None
    lost: int = 0


class StreamFullError(Unavailable):
    """Nothing can be appended within the bounds: for want of memory, or as there are too many groups."""


class RedisStream:
    """The stream, for one thread with one event loop."""

    def __init__(self, url: str, node: str, *, cap_bytes: int) -> None:
        self._address = parse_redis_url(url)
        self._client: Any = make_client(self._address, _LIMITS)
        self._node = node
        self._cap = cap_bytes

    async def append(
        self,
        records: Sequence[tuple[str, str, bytes]],
        expected: str,
        position: str,
        *,
        is_forced: bool = False,
    ) -> Appended:
        """Append records, removing old ones as the cap demands. Raises `Unavailable`, `StreamFullError`.

        Each has its id, the cursor in front of it, and its line.
        `expected` is where the server should have this node's log, `position` where it then has it.
        """
        arguments: list[Any] = [self._node, expected, position, self._cap, int(is_forced), MOST_REMOVED]
        arguments += [MOST_GROUPS, OVERHEAD_BYTES, PENDING_BYTES, GROUP_BYTES]
        for record in records:
            arguments += record
        lost = 0
        while True:
            with translated(self._address.display):
                answer = await self._client.eval(APPEND, 3, STREAM, POSITIONS, LOST, *arguments)
            said = answer[0].decode()
            if said == "moved":
                return Appended(moved_to=answer[1].decode(errors="replace"))
            if said == "groups":
                why = f"the stream has {answer[1]} groups, more than {MOST_GROUPS}: remove some"
                raise StreamFullError("redis", why)
            lost += int(answer[1])
            if said == "ok":
                return Appended(lost=lost)
            if said == "full":
                why = "less than a quarter of maxmemory is free: nothing is appended to the stream"
                raise StreamFullError("redis", why)

    async def close(self) -> None:
        """Close the connection."""
        with translated(self._address.display):
            await self._client.aclose()
