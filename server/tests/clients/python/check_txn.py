"""Transactions across scales: committed events are there once, in the order of their commits; aborted ones are not."""
import asyncio
import time

from pravega_client import StreamRetentionPolicy, StreamScalingPolicy

from kit import *

EVENTS, KEYS = 30, 5


def fill(txn, name):
    for number in range(EVENTS):
        txn.write_event(f"{number % KEYS}/{name}/{number}", f"k{number % KEYS}")


async def closed(txn):
    end = time.monotonic() + 20
    while txn.is_open():
        if time.monotonic() > end:
            raise AssertionError("a transaction is open long after its commit")
        await asyncio.sleep(0.05)


async def body():
    manager, scope = connect(), fresh("txn")
    manager.create_scope(scope)
    manager.create_stream(scope, "s", 2)
    writer = manager.create_transaction_writer(scope, "s", 7)
    before, dropped = writer.begin_txn(), writer.begin_txn()
    fill(before, "before")
    fill(dropped, "dropped")
    policy = StreamScalingPolicy.fixed_scaling_policy(3)
    equal(manager.update_stream_with_policy(scope, "s", policy, StreamRetentionPolicy.none(), []), True, "update")
    behind = writer.begin_txn()
    fill(behind, "behind")
    dropped.abort()
    for txn in (before, behind):
        txn.commit()
        await closed(txn)
    plain = manager.create_writer(scope, "s")
    plain.write_event("0/plain/0", "k0")
    plain.flush()
    reader = group(manager, scope, "s").create_reader("r")
    events = await collect(reader, 2 * EVENTS + 1, 45)
    await nothing_more(reader)
    reader.reader_offline()
    wanted = [f"{n % KEYS}/{name}/{n}".encode() for name in ("before", "behind") for n in range(EVENTS)]
    equal(sorted(events), sorted([*wanted, b"0/plain/0"]), "the events")
    # A commit is answered when it is decided, so the plain event may stand before what was decided.
    events.remove(b"0/plain/0")
    for key in range(KEYS):
        of_key = lambda some: [event for event in some if event.startswith(b"%d/" % key)]
        equal(of_key(events), of_key(wanted), f"the order of key {key}")
    return f"{len(events)} events, {EVENTS} of them rolled"


program("txn", body, 90)
