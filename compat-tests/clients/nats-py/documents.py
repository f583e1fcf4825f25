"""Documents of a server, shaped so that two servers can be compared.

Values that differ from run to run are replaced by their kind; what is left are names and their
order, which fields are left out, and the figures that a scenario decides.
"""

import json

# Fields that say how this machine, this run or this program is, not what a client can rely on.
VARYING = {
    "server_id", "server_name", "now", "start", "uptime", "last_activity", "stop", "rtt", "idle", "created", "mem", "cpu",
    "cores", "gomaxprocs", "gomemlimit", "go", "version", "git_commit", "config_load_time", "config_digest",
    "port", "http_port", "http_host", "host", "store_dir", "max_memory", "max_storage", "update_time",
    "first_ts", "last_ts", "ts", "last_active", "leader", "leader_since", "cid", "name_tag_id", "total_connections",
    "system_id", "reserved_memory", "reserved_storage", "duration", "storage", "bytes_on_disk",
}
# Counts in which every server has its own internal subscriptions and messages.
COUNTS = {
    "subscriptions", "num_subscriptions", "num_cache", "num_inserts", "num_removes", "num_matches",
    "cache_hit_rate", "max_fanout", "avg_fanout", "in_msgs", "in_bytes", "out_msgs", "out_bytes",
    "in_client_msgs", "in_client_bytes", "out_client_msgs", "out_client_bytes", "http_req_stats",
    "waiters", "waits", "wait_time", "max_wait_time", "level", "total", "msgs", "bytes", "slow_consumers",
}
# Connections whose counts are decided by a scenario have names that begin so.
KNOWN = "known-"

# What this server has of its own, or what only versions beside the one it follows have.
DIFFERENT = {"git_commit", "menes_version", "websocket", "feature_flags", "sync_interval", "sync_always", "default_max_consumers"}


def shape(value, key="", exact=False):
    """Replaces what is not to be compared."""
    if isinstance(value, dict):
        exact = exact or str(value.get("name", "")).startswith(KNOWN)
        return {k: shape(v, k, exact) for k, v in value.items()}
    if isinstance(value, list):
        # nats-server keeps these in no order.
        if key in ("subscriptions_list", "subscriptions_list_detail", "allow", "deny"):
            value = sorted(value, key=str)
        return [shape(v, key, exact) for v in value]
    if key in VARYING:
        return f"<{type(value).__name__.replace('float', 'number').replace('int', 'number')}>"
    if key in COUNTS and not exact:
        return "<number>"
    return value


def lines(value, indent=""):
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                yield f"{indent}{key}:"
                yield from lines(item, indent + "  ")
            else:
                yield f"{indent}{key}: {json.dumps(item)}"
    elif isinstance(value, list) and value:
        for item in value:
            yield f"{indent}-"
            yield from lines(item, indent + "  ")
    else:
        yield f"{indent}{json.dumps(value)}"


def without(value):
    """Leaves out what is meant to differ."""
    if isinstance(value, dict):
        return {k: without(v) for k, v in value.items() if k not in DIFFERENT}
    return [without(v) for v in value] if isinstance(value, list) else value
