"""Metrics: what a scrape shows while stations are used, read by Prometheus's own parsers."""

import os
import urllib.error
import urllib.request

from nats.js.errors import APIError
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text
from scenario import ask, check, check_error, eventually, plain, run, texts

URL = os.environ["METRICS_URL"]
DOCUMENT = os.path.join(os.path.dirname(__file__), "../../../docs/metrics.md")


def get(path, accept="*/*", method="GET"):
    request = urllib.request.Request(URL + path, headers={"Accept": accept}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def scrape(names=""):
    """All samples, as (name, labels) -> value, and the families."""
    query = f"?names={names}" if names else ""
    status, kind, text = get("/metrics" + query, "application/openmetrics-text; version=1.0.0")
    check("scrape", [status, kind.split(";")[0]], [200, "application/openmetrics-text"])
    families = list(open_metrics(text))
    samples = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            if key in samples:
                raise AssertionError(f"{key} comes twice")
            samples[key] = sample.value
    return samples, families


def value(samples, name, **labels):
    """The one sample of this name with these labels among others."""
    wanted = set(labels.items())
    found = [v for (n, have), v in samples.items() if n == name and wanted <= have]
    check(f"{name} {labels} is there once", len(found), 1)
    return found[0]


async def numbers_follow_what_happens(memphis, js):
    before, _ = scrape()
    await memphis.station("metered", partitions_number=2)
    producer = await memphis.producer("metered", "p")
    for n in range(5):
        await producer.produce(f"m{n}", producer_partition_number=1)
    consumer = await memphis.consumer("metered", "c", consumer_group="grp.x", max_msg_deliveries=2)
    messages = await consumer.fetch(batch_size=3, consumer_partition_number=1)
    check("taken", texts(messages), ["m0", "m1", "m2"])
    await messages[0].ack()

    async def is_settled():
        return (await js.consumer_info("metered$1", "grp#x")).num_ack_pending == 2

    await eventually("one is settled", is_settled)
    samples, families = scrape()
    partition = {"station": "metered", "partition": "1", "account": "$G"}
    for name, expected in (
        ("menes_stream_messages", 5),
        ("menes_stream_stored_total", 5),
        ("menes_consumer_pending", 2),
        ("menes_consumer_ack_pending", 2),
        ("menes_consumer_deliveries_total", 3),
        ("menes_consumer_redelivered", 0),
    ):
        check(name, value(samples, name, **partition), expected)
    check("the other partition", value(samples, "menes_stream_messages", station="metered", partition="2"), 0)
    check("group", value(samples, "menes_consumer_pending", consumer="grp#x", partition="1", stream="metered$1"), 2)
    check("ready", value(samples, "menes_streams_ready"), 1)
    check("fresh", value(samples, "menes_details_fresh"), 1)
    check("nothing left out", value(samples, "menes_series_left_out", kind="stream"), 0)
    check("stations", value(samples, "menes_stations", account="$G") >= 1, True)
    grown = value(samples, "menes_messages_received_total") - value(before, "menes_messages_received_total")
    check("messages are counted", grown >= 6, True)
    syncs = value(samples, "menes_log_sync_seconds_count")
    check("syncs are counted", syncs > value(before, "menes_log_sync_seconds_count"), True)
    check("into buckets", value(samples, "menes_log_sync_seconds_bucket", le="+Inf"), syncs)
    check("commits too", value(samples, "menes_log_commit_bytes_bucket", le="+Inf"), syncs)
    check("disk", value(samples, "menes_disk_free_bytes") > value(samples, "menes_disk_critical_bytes"), True)
    check("connections", value(samples, "menes_connections") >= 1, True)
    check("own requests", value(samples, "menes_http_requests_total", face="metrics", status="2xx") >= 1, True)
    check("helped", [f.name for f in families if not f.documentation], [])
    with open(DOCUMENT, encoding="utf-8") as file:
        document = file.read()
    check("documented", [f.name for f in families if f"`{f.name}`" not in document], [])


async def schemas_are_counted(js, nc):
    before, _ = scrape()
    await ask(nc, "SCHEMA.CREATE", name="metric", type="json", content='{"type":"object","required":["id"]}')
    await ask(nc, "STATION.CREATE", station="checked")
    await ask(nc, "SCHEMA.ATTACH", name="metric", station="checked")
    await js.publish("checked$1.final", b'{"id":1}')
    await check_error("refused", js.publish("checked$1.final", b"{}"), "Schema validation has failed", APIError)

    async def is_kept():
        samples, _ = scrape()
        return any(n == "menes_dead_letters" for n, _ in samples) and value(samples, "menes_dead_letters") == 1

    await eventually("a dead letter", is_kept)
    samples, _ = scrape()
    for name, more in (("menes_schema_checks_total", 2), ("menes_schema_rejections_total", 1)):
        check(name, value(samples, name) - value(before, name), more)
    check("recorded", value(samples, "menes_dead_letters_recorded_total", account="$G"), 1)


async def other_names():
    nats, families = scrape("nats")
    for name in ("gnatsd_varz_connections", "gnatsd_varz_mem", "gnatsd_varz_in_msgs", "gnatsd_varz_subscriptions",
                 "gnatsd_varz_slow_consumers", "gnatsd_varz_jetstream_stats_storage", "gnatsd_varz_jetstream_config_max_storage",
                 "gnatsd_connz_num_connections", "gnatsd_subsz_num_subscriptions", "gnatsd_routez_num_routes",
                 "gnatsd_healthz_status", "jetstream_server_total_streams", "jetstream_server_total_consumers"):
        value(nats, name)
    check("all are gauges", {f.type for f in families}, {"gauge"})
    stream = {"stream_name": "metered$1", "account": "$G", "is_stream_leader": "true"}
    check("messages", value(nats, "jetstream_stream_total_messages", **stream), 5)
    check("no limit", value(nats, "jetstream_stream_limit_bytes", **stream), -1)
    consumer = value(nats, "jetstream_consumer_num_pending", stream_name="metered$1", consumer_name="grp#x")
    check("pending", consumer, 2)

    memphis, _ = scrape("memphis")
    # What the vendor's dashboards and alerts use.
    for name in ("memphis_varz_cpu", "memphis_varz_mem", "memphis_varz_connections", "memphis_varz_jetstream_stats_storage",
                 "memphis_varz_jetstream_stats_memory", "memphis_varz_jetstream_config_max_storage",
                 "memphis_varz_jetstream_config_max_memory", "memphis_server_total_consumers"):
        value(memphis, name)
    check("bytes", value(memphis, "memphis_stream_total_bytes", stream_name="metered$1") > 0, True)
    check("messages", value(memphis, "memphis_stream_total_messages", stream_name="metered$1"), 5)
    for name, expected in (("num_pending", 2), ("num_ack_pending", 2), ("delivered_consumer_seq", 3)):
        found = value(memphis, f"memphis_consumer_{name}", stream_name="metered$1", consumer_name="grp#x")
        check(name, found, expected)

    both, _ = scrape("menes,memphis")
    check("both", value(both, "menes_stream_messages", stream="metered$1"), 5)
    value(both, "memphis_varz_cpu")


def texts_and_refusals():
    status, kind, text = get("/metrics")
    check("older text", [status, kind], [200, "text/plain; version=0.0.4; charset=utf-8"])
    families = {family.name: family for family in plain_text(text)}
    check("counter", families["menes_messages_received"].type, "counter")
    check("histogram", families["menes_log_sync_seconds"].type, "histogram")
    check("gauge", families["menes_connections"].type, "gauge")
    check("unknown names", get("/metrics?names=menes,prometheus")[0], 400)
    check("elsewhere", get("/other")[0], 404)
    check("the door", get("/")[0], 200)
    check("nothing can be changed", get("/metrics", method="POST")[0], 405)


async def scenario(memphis, js):
    await numbers_follow_what_happens(memphis, js)
    await other_names()
    nc = await plain()
    await schemas_are_counted(js, nc)
    await nc.close()
    texts_and_refusals()


run(scenario)
