"""Writes numbered events of many keys, one flush after another, and says `acked EVENTS FLUSHES` after each, until its
standard input ends. Run by `cargo xtask crash`, which kills the server meanwhile."""
import select

from kit import *

KEYS, BATCH = 17, 250


def body():
    manager = connect()
    manager.create_scope("crash")
    manager.create_stream("crash", "s", 3)
    writer, written, flushes = manager.create_writer("crash", "s", 0), 0, 0
    while True:
        stop = bool(select.select([sys.stdin], [], [], 0)[0])
        for _ in range(BATCH):
            writer.write_event(f"{written % KEYS}/{written}/" + "x" * (written % 120), f"k{written % KEYS}")
            written += 1
        writer.flush()
        flushes += 1
        print(f"acked {written} {flushes}", flush=True)
        if stop:
            return f"{written} events"


program("crash_writer", body, 170)
