"""Two readers of one group, one after the other, and a group started from a stream cut: no event twice, none missed."""
from kit import *

EVENTS = 500


async def body():
    manager, scope = connect(), fresh("handoff")
    manager.create_scope(scope)
    manager.create_stream(scope, "s", 1)
    writer = manager.create_writer(scope, "s", 100)
    wanted = [f"event {number:05}".encode() for number in range(EVENTS)]
    for event in wanted:
        writer.write_event_bytes(event, "k")
    writer.flush()
    readers = group(manager, scope, "s")
    first = readers.create_reader("first")
    piece = await take_slice(first)
    seen = [bytes(next(piece).data()) for _ in range(120)]
    first.release_segment(piece)
    first.reader_offline()
    cut = readers.get_streamcut()
    equal(list(cut.get_segment_offset_map().values()), [120 * (8 + len(wanted[0]))], "the cut's offset")
    second = readers.create_reader("second")
    rest = await collect(second, EVENTS - 120)
    await nothing_more(second)
    second.reader_offline()
    equal(seen + rest, wanted, "the events of both readers")
    third = group(manager, scope, "s", cut=cut).create_reader("third")
    equal(await collect(third, EVENTS - 120), wanted[120:], "the events from the cut on")
    third.reader_offline()
    return f"120 and {EVENTS - 120} events"


program("handoff", body)
