"""A sealed stream gives all it has, takes nothing more, and can go."""
from kit import *


async def body():
    manager, scope = connect(), fresh("seal")
    manager.create_scope(scope)
    manager.create_stream(scope, "s", 4)
    writer = manager.create_writer(scope, "s")
    for number in range(120):
        writer.write_event(f"{number}", f"k{number % 11}")
    writer.flush()
    equal(manager.seal_stream(scope, "s"), True, "seal")

    def late():
        writer.write_event("late", "k")
        writer.flush()

    refused("a write after the seal", late)
    reader = group(manager, scope, "s").create_reader("r")
    events = await collect(reader, 120)
    await nothing_more(reader, 4)
    equal(sorted(int(event) for event in events), list(range(120)), "events of the sealed stream")
    reader.reader_offline()
    equal(manager.delete_stream(scope, "s"), True, "deletion")
    return "120 events, then nothing"


program("seal", body)
