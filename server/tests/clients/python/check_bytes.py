"""A byte stream: what was written is read back, sought and truncated."""
import random

from kit import *


def body():
    manager, scope = connect(), fresh("bytes")
    manager.create_scope(scope)
    manager.create_stream(scope, "s", 1)
    stream, data = manager.create_byte_stream(scope, "s"), random.Random(7).randbytes(2_500_000)
    at = 0
    while at < len(data):
        at += stream.write(data[at:at + 70_000])
    stream.flush()
    equal((stream.current_head_offset(), stream.current_tail_offset()), (0, len(data)), "head and tail")

    def read(count):
        found = bytearray()
        while len(found) < count:
            buffer = bytearray(min(100_000, count - len(found)))
            got = stream.readinto(buffer)
            if got == 0:
                raise AssertionError(f"the stream ended after {len(found)} of {count} bytes")
            found += buffer[:got]
        return bytes(found)

    equal(read(len(data)) == data, True, "the whole content")
    for place in (0, 1, 999_999, len(data) - 10):
        stream.seek(place, 0)
        equal(read(10), data[place:place + 10], f"ten bytes at {place}")
    stream.truncate(1_000_000)
    equal(stream.current_head_offset(), 1_000_000, "head after the truncation")
    stream.seek(1_000_000, 0)
    equal(read(1000), data[1_000_000:1_001_000], "bytes at the new head")
    return f"{len(data)} bytes"


program("bytes", body)
