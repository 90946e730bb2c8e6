"""A group that starts at the tail sees what comes later and nothing else, at once."""
from kit import *


async def body():
    manager, scope = connect(), fresh("tail")
    manager.create_scope(scope)
    manager.create_stream(scope, "s", 3)
    writer = manager.create_writer(scope, "s")
    for number in range(30):
        writer.write_event(f"old {number}", f"k{number}")
    writer.flush()
    reader = group(manager, scope, "s", from_tail=True).create_reader("r")
    await nothing_more(reader)
    seen, slowest = [], 0.0
    for number in range(20):
        writer.write_event(f"new {number}", f"k{number}")
        writer.flush()
        began = time.monotonic()
        seen += await collect(reader, 1, 10)
        slowest = max(slowest, time.monotonic() - began)
    equal(sorted(seen), sorted(f"new {n}".encode() for n in range(20)), "events after the tail")
    reader.reader_offline()
    return f"20 events one by one, slowest {slowest * 1000:.0f} ms"


program("tail", body)
