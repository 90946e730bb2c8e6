"""Scopes and streams come, are listed, are refused, and go."""
from kit import *


def body():
    manager, scope = connect(), fresh("admin")
    equal(manager.create_scope(scope), True, "a new scope")
    equal(manager.create_scope(scope), False, "the same scope again")
    for stream, segments in (("one", 1), ("four", 4)):
        equal(manager.create_stream(scope, stream, segments), True, f"stream {stream}")
    equal(manager.create_stream(scope, "one", 2), False, "the same stream again")
    listed = {name for name in manager.list_stream(scope) if not name.startswith("_")}
    equal(listed, {"one", "four"}, "the scope's streams")
    refused("a stream in no scope", lambda: manager.create_stream(fresh("none"), "s", 1))
    refused("a stream name with a slash", lambda: manager.create_stream(scope, "a/b", 1))
    refused("deletion of an open stream", lambda: manager.delete_stream(scope, "one"))
    refused("deletion of a full scope", lambda: manager.delete_scope(scope))
    equal(manager.create_stream(scope, "after", 1), True, "a stream after the refused deletion of its scope")
    for stream in ("one", "four", "after"):
        equal(manager.seal_stream(scope, stream), True, f"seal of {stream}")
        equal(manager.delete_stream(scope, stream), True, f"deletion of {stream}")
    equal(manager.create_stream(scope, "one", 3), True, "a stream of a deleted one's name")
    manager.create_writer(scope, "one").write_event("x", "k")
    equal(manager.seal_stream(scope, "one") and manager.delete_stream(scope, "one"), True, "its end")
    equal(manager.delete_scope(scope), True, "deletion of the empty scope")
    equal(scope in manager.list_scope(), False, "the deleted scope in the list")
    return "18 steps"


program("admin", body)
