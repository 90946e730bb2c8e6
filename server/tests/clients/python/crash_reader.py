"""Reads what crash_writer.py wrote: every one of the given number of events once, in the order of its key."""
from kit import *

KEYS = 17


async def body():
    wanted = int(sys.argv[1])
    manager = connect()
    reader = group(manager, "crash", "s").create_reader("r")
    events = await collect(reader, wanted, 120)
    await nothing_more(reader)
    last = dict.fromkeys(range(KEYS), -KEYS)
    for event in events:
        key, number, padding = event.split(b"/")
        key, number = int(key), int(number)
        if len(padding) != number % 120 or key != number % KEYS:
            raise AssertionError(f"event {number} is damaged")
        if last[key] == -KEYS:
            last[key] = key - KEYS
        if number != last[key] + KEYS:
            raise AssertionError(f"key {key}: {number} follows {last[key]}: lost, doubled or out of order")
        last[key] = number
    equal(len(events), wanted, "events read")
    return f"{wanted} events read, none lost, none doubled, every key in order"


program("crash_reader", body, 175)
