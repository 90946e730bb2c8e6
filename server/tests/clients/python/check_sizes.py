"""Events from one byte to more than the client's block, the largest by way of a transient segment."""
import hashlib

from kit import *

SIZES = [1, 2, 8, 255, 256, 4095, 70_000, 1 << 20, 5_000_000, (8 << 20) + 1, 12_000_000, 3, 9_000_000, 10]


async def body():
    manager, scope = connect(), fresh("sizes")
    manager.create_scope(scope)
    manager.create_stream(scope, "s", 1)
    writer, wanted = manager.create_writer(scope, "s"), []
    for number, size in enumerate(SIZES):
        event = hashlib.shake_128(bytes([number])).digest(size)
        wanted.append((size, hashlib.sha1(event).hexdigest()))
        writer.write_event_bytes(event, "k")
    writer.flush()
    reader = group(manager, scope, "s").create_reader("r")
    events = await collect(reader, len(SIZES), 60)
    equal([(len(e), hashlib.sha1(e).hexdigest()) for e in events], wanted, "sizes and digests in order")
    reader.reader_offline()
    return f"{len(SIZES)} events, {sum(SIZES) / 1e6:.0f} MB"


program("sizes", body, 110)
