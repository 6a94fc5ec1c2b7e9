"""Read the audit stream as one consumer of a group: stream_consumer.py REDIS_URL GROUP [NAME]."""

import sys

import redis

STREAM = "{cachegate}:audit:stream"
url, group, name = (*sys.argv[1:], "consumer-1")[:3]
client, position = redis.Redis.from_url(url, decode_responses=True, protocol=2), "0"
while True:
    found = client.xreadgroup(group, name, {STREAM: position}, count=100, block=1000)
    entries = found[0][1] if found else []
    for entry, fields in entries:
        if fields.get("lost") in (None, group):  # a record, or what the feed has to complete
            print(fields.get("record") or f"lost: read on from {fields['from']}", flush=True)
        client.xack(STREAM, group, entry)
    position = position if entries and position == "0" else ">"  # first what a crash left
