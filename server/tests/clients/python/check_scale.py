"""A stream changes its segments under a writer: nothing lost, doubled, or out of its key's order."""
from pravega_client import StreamRetentionPolicy, StreamScalingPolicy

from kit import *

ROUND, KEYS = 400, 16


async def body():
    manager, scope = connect(), fresh("scale")
    manager.create_scope(scope)
    manager.create_stream(scope, "s", 1)
    writer, written = manager.create_writer(scope, "s", 50), 0
    for segments in (1, 4, 2, 6):
        policy = StreamScalingPolicy.fixed_scaling_policy(segments)
        equal(manager.update_stream_with_policy(scope, "s", policy, StreamRetentionPolicy.none(), []), True, "update")
        for _ in range(ROUND):
            writer.write_event(f"{written % KEYS}/{written}", f"k{written % KEYS}")
            written += 1
        writer.flush()
    reader = group(manager, scope, "s").create_reader("r")
    events = await collect(reader, written, 45)
    await nothing_more(reader)
    reader.reader_offline()
    equal(len(events), written, "events read over four epochs")
    last = {}
    for event in events:
        key, number = map(int, event.split(b"/"))
        if last.get(key, -1) >= number:
            raise AssertionError(f"key {key}: {number} after {last[key]}")
        last[key] = number
    equal(sorted(int(e.split(b"/")[1]) for e in events), list(range(written)), "the events themselves")
    return f"{written} events over segments 1, 4, 2, 6"


program("scale", body, 90)
