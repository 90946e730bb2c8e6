"""Tags and policies are kept, replaced, and do not disturb a writer."""
from pravega_client import StreamRetentionPolicy, StreamScalingPolicy

from kit import *


def body():
    manager, scope, checked = connect(), fresh("policies"), 0
    manager.create_scope(scope)
    scalings = [
        StreamScalingPolicy.fixed_scaling_policy(3),
        StreamScalingPolicy.auto_scaling_policy_by_data_rate(50, 2, 1),
        StreamScalingPolicy.auto_scaling_policy_by_event_rate(50, 2, 2),
    ]
    retentions = [StreamRetentionPolicy.none(), StreamRetentionPolicy.by_size(1 << 30), StreamRetentionPolicy.by_time(3_600_000)]
    for scaling in scalings:
        for retention in retentions:
            stream, tags = f"s{checked}", [f"n{checked}", "all"]
            equal(manager.create_stream_with_policy(scope, stream, scaling, retention, tags), True, stream)
            equal(sorted(manager.get_stream_tags(scope, stream)), sorted(tags), "tags")
            writer = manager.create_writer(scope, stream)
            writer.write_event("before", "k")
            equal(manager.update_stream_with_policy(scope, stream, scaling, retention, ["later"]), True, "update")
            equal(manager.get_stream_tags(scope, stream), ["later"], "tags after the update")
            writer.write_event("after", "k")
            writer.flush()
            checked += 1
    refused("tags of no stream", lambda: manager.get_stream_tags(scope, "none"))
    return f"{checked} combinations"


program("policies", body)
