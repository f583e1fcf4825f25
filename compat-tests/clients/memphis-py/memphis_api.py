"""The management API of Memphis below `/api/`, as its command line tool and scripts call it; what it
does is looked at with memphis-py, nats-py, and the broker's own API."""


import os

from exchanges import API, PASSWORD, REST, USER
from memphis_routes import call, done, refused, use
from scenario import check, eventually, run, texts


async def logins():
    check("status", (await call("GET", "status"))[:2], (200, {"message": "Ok"}))
    check("version", (await call("GET", "monitoring/getClusterInfo"))[:2], (200, {"version": "1.4.4"}))
    check("nobody signs up", (await call("GET", "usermgmt/getSignUpFlag"))[1], {"show_signup": False})
    await refused("not even when asked", 406, "POST", "usermgmt/addUserSignUp", {"username": "a@b.c", "password": "Aa1!aaaa"})
    check("no token", await refused("no token", 401, "GET", "stations/getAllStations"), "Unauthorized")
    await refused("a wrong token", 401, "GET", "stations/getAllStations", token="x.y.z")
    check("a wrong password", await refused("login", 401, "POST", "usermgmt/login", {"username": USER, "password": "no"}), "Unauthorized")
    check("a field is missing", await refused("login", 400, "POST", "usermgmt/login", {"username": USER}), [{"field": "password", "reason": "required"}])
    status, login, fields = await call("POST", "usermgmt/login", {"username": USER, "password": PASSWORD})
    check("login", (status, login["expires_in"], login["username"], login["account_id"], login["connection_token"]), (200, 900000, USER, 1, ""))
    cookie = fields["set-cookie"]
    check("a cookie to renew it", (cookie.startswith("memphis-jwt-refresh-token="), "HttpOnly" in cookie, "Max-Age=172800" in cookie), (True, True, True))
    token = use(login["jwt"])
    status, again, _ = await call("POST", "usermgmt/refreshToken", headers={"Cookie": cookie.split(";")[0]})
    check("renewed", (status, again["username"]), (200, USER))
    token = use(again["jwt"])
    await refused("without the cookie", 401, "POST", "usermgmt/refreshToken")
    await refused("a token for requests does not renew", 401, "POST", "usermgmt/refreshToken", headers={"Cookie": f"memphis-jwt-refresh-token={token}"})
    check("nor the other way round", (await call("GET", "stations/getAllStations", token=cookie.split(";")[0].split("=", 1)[1]))[0], 401)


async def stations(memphis, js):
    made = await done("created", "POST", "stations/createStation", {
        "name": "Mem.One", "retention_type": "messages", "retention_value": 100, "storage_type": "file", "replicas": 1,
        "partitions_number": 2, "dls_configuration": {"poison": True, "schemaverse": False}, "idempotency_window_in_ms": 5000,
    })
    check("what it says", sorted(made), sorted([
        "id", "name", "retention_type", "retention_value", "storage_type", "replicas", "created_by_username", "created_at", "last_update",
        "is_deleted", "idempotency_window_in_ms", "dls_configuration_poison", "dls_configuration_schemaverse", "tiered_storage_enabled",
        "resend_disabled", "dls_station",
    ]))
    check("as asked", (made["name"], made["retention_value"], made["dls_configuration_poison"], made["dls_configuration_schemaverse"], made["idempotency_window_in_ms"]), ("mem.one", 100, True, False, 5000))
    check("a stream for each partition", (await js.stream_info("mem#one$2")).config.max_msgs, 100)
    check("made twice", "exists already" in await refused("created", 406, "POST", "stations/createStation", {"name": "mem.one", "partitions_number": 1}), True)
    await refused("no name", 400, "POST", "stations/createStation", {})
    await refused("no JSON", 400, "POST", "stations/createStation", "{")
    await done("by the old tool, which knows no partitions", "POST", "stations/createStation", {"name": "mem.old", "retention_type": "message_age_sec", "retention_value": 604800, "storage_type": "file", "replicas": 1})
    check("one partition", (await js.stream_info("mem#old$1")).config.max_age, 604800.0)
    station = await done("one", "GET", "stations/getStation", {"station_name": "mem.one"})
    check("with the names of Memphis", (station["dls_configuration"], station["partitions_list"], station["partitions_number"], station["tags"], station["id"] == made["id"]), ({"poison": True, "schemaverse": False}, [1, 2], 2, [], True))
    every = await done("all", "GET", "stations/getAllStations", None)
    check("names", sorted(s["name"] for s in every), ["mem.old", "mem.one"])
    check("spelt so", "schema_vesrion_number" in every[0], True)
    listed = await done("the list of the page", "GET", "stations/getStations", None)
    check("spelt so, too", (len(listed["stations"]), listed["stations"][0]["posion_messages"]), (2, 0))
    await refused("no such station", 406, "GET", "stations/getStation", {"station_name": "none"})
    await refused("which one", 400, "GET", "stations/getStation", {})

    producer = await memphis.producer("mem.one", "maker")
    for n in range(4):
        await producer.produce(bytearray(f"message {n}".encode()))
    await done("produced", "POST", "stations/produce", {"station_name": "mem.one", "partition_number": 1, "message_payload": "from here", "message_headers": {"k": "v"}, "amount": 2, "bypass_schema": True, "data_format": "string"})
    info = await js.stream_info("mem#one$1")
    last = await js.get_msg("mem#one$1", info.state.last_seq)
    check("as a message", (last.data, last.headers["k"], info.state.messages), (b"from here", "v", 4))
    details = await done("a message", "GET", "stations/getMessageDetails", {"station_name": "mem.one", "partition_number": 1, "message_seq": 1, "is_dls": "false"})
    check("in hex", (bytes.fromhex(details["message"]["data"])[:8], details["producer"], details["poisoned_cgs"]), (b"message ", {"name": "maker", "is_active": True}, []))
    overview = await done("the page of a station", "GET", "monitoring/getStationOverviewData", {"station_name": "mem.one", "partition_number": -1})
    check("what is in it", (overview["total_messages"], len(overview["messages"]), overview["connected_producers"][0]["name"], overview["connected_cgs"]), (6, 6, "maker", []))
    check("the newest first", bytes.fromhex(overview["messages"][0]["data"]), b"from here")
    one = await done("one partition of it", "GET", "monitoring/getStationOverviewData", {"station_name": "mem.one", "partition_number": 2})
    check("only those", {m["partition"] for m in one["messages"]}, {2})
    await done("removed", "DELETE", "stations/removeMessages", {"station_name": "mem.one", "messages": [{"message_seq": 1, "partition_number": 1}]}, {})
    check("one less", (await js.stream_info("mem#one$1")).state.messages, 3)
    made = await done("all producers", "GET", "producers/getAllProducers", None)
    check("who they are", [(p["name"], p["is_active"], p["station_name"]) for p in made], [("maker", True, "mem.one")])
    made = await done("of a station", "GET", "producers/getAllProducersByStation", {"station_name": "mem.one"})
    check("sorted", {key: len(value) for key, value in made.items()}, {"connected_producers": 1, "disconnected_producers": 0, "deleted_producers": 0})


async def dead_letters(memphis, js):
    consumer = await memphis.consumer("mem.one", "taker", consumer_group="g", max_msg_deliveries=1, max_ack_time_ms=500)
    taken = [await consumer.fetch(batch_size=10, consumer_partition_number=partition) for partition in (1, 2)]
    check("nobody acknowledges", sum(len(messages) for messages in taken), 5)

    async def there():
        _, overview, _ = await call("GET", "monitoring/getStationOverviewData", {"station_name": "mem.one", "partition_number": -1})
        return len(overview["poison_messages"]) == 5

    await eventually("dead letters", there, limit=20.0)
    overview = await done("the page of a station", "GET", "monitoring/getStationOverviewData", {"station_name": "mem.one", "partition_number": -1})
    check("its group", [(g["name"], g["is_active"], len(g["connected_consumers"])) for g in overview["connected_cgs"]], [("g", True, 1)])
    ids = [letter["id"] for letter in overview["poison_messages"]]
    letter = await done("a dead letter", "GET", "stations/getMessageDetails", {"station_name": "mem.one", "partition_number": 1, "is_dls": "true", "dls_type": "poison", "message_id": ids[0]})
    check("whose", (letter["station_name"], [(g["cg_name"], g["is_active"], [m["name"] for m in g["cg_members"]]) for g in letter["poisoned_cgs"]]), ("mem.one", [("g", True, ["taker"])]))
    journey = await done("its journey", "GET", "stations/getPoisonMessageJourney", {"message_id": ids[0]})
    check("the same", journey["message"], letter["message"])
    listed = await done("the list", "GET", "stations/getStations", None)
    check("counts them", [s["posion_messages"] for s in listed["stations"] if s["station"]["name"] == "mem.one"], [5])
    await done("resent", "POST", "stations/resendPoisonMessages", {"station_name": "mem.one", "poison_message_ids": ids[:1]}, {})

    got = []

    async def again():
        got.extend(texts(await consumer.fetch(batch_size=1)))
        return len(got) >= 1

    await eventually("to the group", again, limit=20.0)
    await done("dropped", "POST", "stations/dropDlsMessages", {"station_name": "mem.one", "dls_type": "poison", "dls_message_ids": ids[1:]}, {})
    await refused("nothing to drop", 400, "POST", "stations/dropDlsMessages", {"station_name": "mem.one", "dls_type": "poison", "dls_message_ids": []})
    switches = await done("switches", "PUT", "stations/updateDlsConfig", {"station_name": "mem.one", "poison": False, "schemaverse": True})
    check("as they are now", switches, {"poison": False, "schemaverse": True})
    await done("a station for them", "POST", "stations/attachDlsStation", {"name": "mem.old", "station_names": ["mem.one"]}, {})
    check("attached", (await done("one", "GET", "stations/getStation", {"station_name": "mem.one"}))["dls_station"], "mem.old")
    await done("none", "DELETE", "stations/detachDlsStation", {"name": "mem.old", "station_names": ["mem.one"]}, {})
    check("detached", (await done("one", "GET", "stations/getStation", {"station_name": "mem.one"}))["dls_station"], "")
    await done("purged", "DELETE", "stations/purgeStation", {"station_name": "mem.one", "purge_station": True, "purge_dls": True, "partitions_list": [-1]}, {})
    check("empty", [(await js.stream_info(f"mem#one${p}")).state.messages for p in (1, 2)], [0, 0])


async def schemas(js):
    content = '{"type":"object","required":["f"]}'
    await done("valid", "POST", "schemas/validateSchema", {"schema_type": "json", "schema_content": content}, {"is_valid": True})
    await refused("not valid", 555, "POST", "schemas/validateSchema", {"schema_type": "json", "schema_content": "["})
    check("nothing came of it", await done("all", "GET", "schemas/getAllSchemas", None), [])
    made = await done("made", "POST", "schemas/createNewSchema", {"name": "mem-schema", "type": "json", "schema_content": content, "tags": [], "message_struct_name": ""})
    check("what it says", (sorted(made), made["name"], made["type"]), (["created_by_username", "id", "name", "tenant_name", "type"], "mem-schema", "json"))
    await refused("made twice", 406, "POST", "schemas/createNewSchema", {"name": "mem-schema", "type": "json", "schema_content": "{}"})
    await refused("a long name", 406, "POST", "schemas/createNewSchema", {"name": "x" * 33, "type": "json", "schema_content": "{}"})
    await refused("no definition", 555, "POST", "schemas/createNewSchema", {"name": "bad", "type": "json", "schema_content": "["})
    details = await done("a version", "POST", "schemas/createNewVersion", {"schema_name": "mem-schema", "schema_content": "{}", "message_struct_name": ""})
    check("inactive", [(v["version_number"], v["active"]) for v in details["versions"]], [(1, True), (2, False)])
    used = await done("used", "POST", "stations/useSchema", {"station_names": ["mem.one"], "schema_name": "mem-schema"})
    check("by a station", used, {"name": "mem-schema", "schema_type": "json", "version_number": 1, "updates_available": False})
    details = await done("rolled", "PUT", "schemas/rollBackVersion", {"schema_name": "mem-schema", "version_number": 2})
    check("active", ([(v["version_number"], v["active"]) for v in details["versions"]], details["used_stations"]), ([(1, False), (2, True)], ["mem.one"]))
    every = await done("all", "GET", "schemas/getAllSchemas", None)
    check("which", [(s["name"], s["active_version_number"], s["used"]) for s in every], [("mem-schema", 2, True)])
    station = await done("what the station follows", "GET", "stations/getUpdatesForSchemaByStation", {"station_name": "mem.one"})
    check("the same", station["schema_name"], "mem-schema")
    await done("taken away", "DELETE", "stations/removeSchemaFromStation", {"station_name": "mem.one"}, {})
    await done("removed", "DELETE", "schemas/removeSchema", {"schema_names": ["mem-schema"]}, {})
    await refused("gone", 406, "GET", "schemas/getSchemaDetails", {"schema_name": "mem-schema"})


async def others():
    config = await done("settings", "GET", "configurations/getClusterConfig", None)
    check("dead letters are kept", config["dls_retention"], 3)
    check("where the other faces are", [config["rest_gw_host"], config["rest_gw_port"], config["ui_host"], config["ws_host"]],
          [f"http://localhost:{REST.port}", REST.port, f"http://localhost:{API.port}", "localhost:" + os.environ["WS_URL"].rsplit(":", 1)[1]])
    changed = await done("for longer", "PUT", "configurations/editClusterConfig", {**config, "dls_retention": 5})
    check("now", changed["dls_retention"], 5)
    await refused("too long", 406, "PUT", "configurations/editClusterConfig", {"dls_retention": 5000})
    await refused("what means nothing here", 406, "PUT", "configurations/editClusterConfig", {"logs_retention": 9})
    main = await done("the first page", "GET", "monitoring/getMainOverviewData", None)
    check("counts", (main["total_stations"], len(main["stations"])), (2, 2))
    check("replicas", await done("replicas", "GET", "monitoring/getAvailableReplicas", None), {"available_replicas": 1})
    check("tasks", await done("tasks", "GET", "asyncTasks/getAsyncTasks", None), {"async_tasks": []})
    for label, path, body in (
        ("integrations", "integrations/createIntegration", {"name": "slack", "keys": {}}),
        ("tags", "tags/createNewTag", {"name": "a", "color": "1, 2, 3"}),
    ):
        await refused(f"{label} are refused clearly", 406, "POST", path, body)
    await refused("logs are elsewhere", 406, "GET", "monitoring/getSystemLogs", {"log_type": "err"})
    for method, path in (("GET", "x"), ("GET", ""), ("POST", "stations/getStation"), ("GET", "stations/x"), ("GET", "billing/x")):
        await refused(f"{method} {path}", 404, method, path)
    await done("removed", "DELETE", "stations/removeStation", {"station_names": ["mem.one", "mem.old"]}, {})
    check("none left", await done("all", "GET", "stations/getAllStations", None), [])


async def scenario(memphis, js):
    await logins()
    await stations(memphis, js)
    await dead_letters(memphis, js)
    await schemas(js)
    await others()


run(scenario)
