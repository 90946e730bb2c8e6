"""What the programs here share. Each runs on the real client against the server named in PRAVEGA_URI, ends with the
line `PASS name figure` or `FAIL name reason`, and exits 0 or 1.

The client's calls hold the interpreter's lock while they wait, so only a watchdog thread below Python can end a hang,
and its own threads may abort the interpreter's teardown, hence the hard exit.
"""
import asyncio
import faulthandler
import os
import secrets
import sys
import time
import traceback

import pravega_client

URI = os.environ.get("PRAVEGA_URI", "tcp://127.0.0.1:9090")
_alive = []  # A writer or reader whose manager has been collected loses its runtime.


def connect():
    manager = pravega_client.StreamManager(URI, False, False)
    _alive.append(manager)
    return manager


def fresh(word):
    """A name that no other run has."""
    return word + secrets.token_hex(5)


def equal(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {str(found)[:300]} instead of {str(wanted)[:300]}")


def refused(what, call):
    """`call` must raise; its exception is returned."""
    try:
        answer = call()
    except Exception as error:
        return error
    raise AssertionError(f"{what} was not refused but gave {answer!r}")


def group(manager, scope, stream, from_tail=False, cut=None):
    return manager.create_reader_group(fresh("group"), scope, stream, from_tail, cut)


async def take_slice(reader):
    """The next slice. The pause lets the client's worker finish its hand-over before a blocking call comes."""
    found = await reader.get_segment_slice_async()
    time.sleep(0.005)
    return found


async def collect(reader, count, seconds=30.0):
    """Events until `count` have come or `seconds` have passed."""
    events, end = [], time.monotonic() + seconds
    while len(events) < count and time.monotonic() < end:
        piece = await take_slice(reader)
        events.extend(bytes(event.data()) for event in piece)
        reader.release_segment(piece)
    return events


async def nothing_more(reader, seconds=2.5):
    extra = await collect(reader, sys.maxsize, seconds)
    equal(extra, [], "events that should not be there")


def program(name, body, limit=60):
    faulthandler.dump_traceback_later(limit, exit=True)
    began, code = time.monotonic(), 1
    try:
        figure = body()
        if asyncio.iscoroutine(figure):
            figure = asyncio.run(figure)
        print(f"PASS {name} {figure} [{time.monotonic() - began:.1f} s]")
        code = 0
    except BaseException as error:
        traceback.print_exc()
        print(f"FAIL {name} {type(error).__name__}: {str(error)[:300]}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
