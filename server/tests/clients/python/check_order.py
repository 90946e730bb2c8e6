"""Events of many keys over several segments: each read once, in the order of its key."""
from kit import *

EVENTS, KEYS = 5000, 40


async def body():
    manager, scope = connect(), fresh("order")
    manager.create_scope(scope)
    manager.create_stream(scope, "s", 5)
    writer, began = manager.create_writer(scope, "s", 200), time.monotonic()
    for number in range(EVENTS):
        key = number * 7 % KEYS
        writer.write_event(f"{key}/{number}/" + "-" * (number % 211), f"key {key}")
    writer.flush()
    wrote = time.monotonic() - began
    reader = group(manager, scope, "s").create_reader("r")
    events = await collect(reader, EVENTS)
    await nothing_more(reader)
    reader.reader_offline()
    numbers = {}
    for event in events:
        key, number, _ = event.split(b"/")
        numbers.setdefault(int(key), []).append(int(number))
    equal(len(events), EVENTS, "events read")
    for key, seen in numbers.items():
        equal(seen, [n for n in range(EVENTS) if n * 7 % KEYS == key], f"the events of key {key}")
    return f"{EVENTS} events of {KEYS} keys, {EVENTS / wrote:.0f} written a second"


program("order", body)
