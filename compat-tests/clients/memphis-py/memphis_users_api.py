"""Users through the management API of Memphis, and the routes of it that have little behind them:
what its pages and its command line tool read must have the fields they expect. What the routes do is
looked at with memphis-py."""

import nats
from exchanges import PASSWORD, USER
from memphis_routes import call, done, refused, use
from scenario import MemphisError, check, check_error, connect, eventually, run

SECRET, OTHER = "Secret-1!", "Other-2?x"
NOTES = {"full_name": "The Shop", "team": "core", "position": "none", "owner": "root", "description": "sells"}
LISTS = ("allow_read_permissions", "allow_write_permissions", "deny_read_permissions", "deny_write_permissions")
LISTED = ["avatar_id", "created_at", "description", "full_name", "id", "owner", "pending", "position", "team", "user_type", "username"]


async def log_in(user, password):
    status, answer, _ = await call("POST", "usermgmt/login", {"username": user, "password": password})
    return status, answer


async def making():
    made = await done("an application", "POST", "usermgmt/addUser", {"username": "Shop.App", "user_type": "application", "password": SECRET, "avatar_id": 3, **NOTES})
    check("every field", sorted(made), sorted([*LISTED, "already_logged_in", "broker_connection_creds", "permissions"]))
    check("as asked", (made["username"], made["user_type"], made["avatar_id"], {key: made[key] for key in NOTES}), ("shop.app", "application", 3, NOTES))
    check("free", made["permissions"], dict.fromkeys(LISTS, []))
    check("no password in it", SECRET in str(made), False)
    limits = {"allow_read_permissions": ["shop.*"], "allow_write_permissions": ["shop.in"], "deny_read_permissions": ["shop.secret"]}
    made = await done("with limits", "POST", "usermgmt/addUser", {"username": "limited", "user_type": "application", "password": SECRET, **limits})
    check("as they are", made["permissions"], {**dict.fromkeys(LISTS, []), **limits})
    await done("somebody who manages", "POST", "usermgmt/addUser", {"username": "boss-example.com", "user_type": "management", "password": SECRET})
    await refused("made twice", 406, "POST", "usermgmt/addUser", {"username": "shop.app", "user_type": "application", "password": SECRET})
    check("no name", await refused("no name", 400, "POST", "usermgmt/addUser", {"user_type": "application", "password": SECRET}), [{"field": "username", "reason": "required"}])
    check("no type", await refused("no type", 400, "POST", "usermgmt/addUser", {"username": "x", "password": SECRET}), [{"field": "user_type", "reason": "required"}])
    for label, body in (
        ("another type", {"username": "x", "user_type": "root", "password": SECRET}),
        ("a weak password", {"username": "x", "user_type": "application", "password": "weak"}),
        ("no password for a person", {"username": "x", "user_type": "management"}),
        ("a name that is none", {"username": "a b", "user_type": "application", "password": SECRET}),
        ("a pattern that is none", {"username": "x", "user_type": "application", "password": SECRET, "allow_read_permissions": ["a b"]}),
    ):
        check(label, bool(await refused(label, 406, "POST", "usermgmt/addUser", body)), True)


async def listing():
    users = await done("all", "GET", "usermgmt/getAllUsers", None)
    check("two lists", sorted(users), ["application_users", "management_users"])
    check("applications", sorted(u["username"] for u in users["application_users"]), ["limited", "shop.app"])
    # The configuration of the test spells one user out in both of its names.
    check("who manages", sorted({u["username"].split("$")[0] for u in users["management_users"]}), ["boss-example.com", USER])
    for user in users["application_users"]:
        check(f"{user['username']}: fields", sorted(user), sorted([*LISTED, "permissions"]))
    for user in users["management_users"]:
        check(f"{user['username']}: fields", sorted(user), sorted([*LISTED, "last_login", "role_id"]))
    short = await done("applications alone", "GET", "usermgmt/getApplicationUsers", None)
    check("their fields", [sorted(user) for user in short], [["created_at", "id", "username"]] * 2)
    check("the same numbers", {u["username"]: u["id"] for u in short}, {u["username"]: u["id"] for u in users["application_users"]})
    for route, keys in (("stations", ["storage", "tags", "users"]), ("schemaverse", ["tags", "type", "usage", "users"]), ("syslogs", ["source", "type"])):
        check(f"filters of {route}", sorted(await done(route, "GET", "usermgmt/getFilterDetails", {"route": route})), keys)
    await refused("filters of nothing", 406, "GET", "usermgmt/getFilterDetails", {"route": "x"})
    info = await done("counts", "GET", "monitoring/getSystemGeneralInfo", None)
    check("them all", (info["total_amount_brokers"], info["total_users"], sorted(info)), (1, sum(map(len, users.values())), ["total_amount_brokers", "total_schemas", "total_stations", "total_users"]))


async def using(memphis):
    """What was made means something where messages are."""
    shop = await connect(username="shop.app", password=SECRET)
    for station in ("shop.in", "shop.out", "shop.secret", "other"):
        await (await shop.producer(station, "p")).produce(bytearray(station.encode()))
    limited = await connect(username="limited", password=SECRET)
    await (await limited.producer("shop.in", "p")).produce(bytearray(b"x"))
    await limited.consumer("shop.out", "c")
    for label, asked in (
        ("may not write", limited.producer("shop.out", "p")),
        ("may not read what is denied", limited.consumer("shop.secret", "c")),
        ("may not read what is not allowed", limited.consumer("other", "c")),
    ):
        await check_error(label, asked, "(?i)permission|allowed", (MemphisError, nats.errors.Error))
    await limited.close()
    check("an application does not manage", (await log_in("shop.app", SECRET))[0], 401)
    status, boss = await log_in("boss-example.com", SECRET)
    check("a person does", (status, boss["user_type"], boss["username"]), (200, "management", "boss-example.com"))
    return shop, boss["jwt"]


async def changing(memphis, shop, boss):
    await done("a new password", "PUT", "usermgmt/changePassword", {"username": "shop.app", "password": OTHER}, {})
    await refused("a weak one", 406, "PUT", "usermgmt/changePassword", {"username": "shop.app", "password": "weak"})
    await check_error("the old one", connect(username="shop.app", password=SECRET), "Authorization Violation")
    again = await connect(username="shop.app", password=OTHER)

    async def is_away():
        return not shop.is_connected()

    await eventually("who logged in with it is sent away", is_away)
    await shop.close()
    status, changed, _ = await call("PUT", "usermgmt/editAvatar", {"avatar_id": 7}, boss)
    check("an avatar", (status, changed["username"], changed["avatar_id"], sorted(changed)),
          (200, "boss-example.com", 7, ["already_logged_in", "avatar_id", "created_at", "id", "user_type", "username"]))
    status, users, _ = await call("GET", "usermgmt/getAllUsers", token=boss)
    check("as it is shown", (status, [u["avatar_id"] for u in users["management_users"] if u["username"] == "boss-example.com"]), (200, [7]))
    return again


async def removing(again, boss):
    await refused("oneself", 406, "DELETE", "usermgmt/removeUser", {"username": "boss-example.com"}, boss)
    await refused("root", 406, "DELETE", "usermgmt/removeUser", {"username": USER}, boss)
    await refused("nobody", 406, "DELETE", "usermgmt/removeUser", {"username": "nobody"})
    check("without a name", await refused("no name", 400, "DELETE", "usermgmt/removeUser", {}), [{"field": "username", "reason": "required"}])
    await refused("everything at once", 406, "DELETE", "usermgmt/removeMyUser", {})
    await done("an application", "DELETE", "usermgmt/removeUser", {"username": "Shop.App"}, {})
    await check_error("is not let in", connect(username="shop.app", password=OTHER), "Authorization Violation")

    async def is_away():
        return not again.is_connected()

    await eventually("and sent away", is_away)
    await again.close()
    await done("who manages", "DELETE", "usermgmt/removeUser", {"username": "boss-example.com"}, {})
    check("no longer", (await call("GET", "usermgmt/getAllUsers", token=boss))[0], 401)
    await done("the last", "DELETE", "usermgmt/removeUser", {"username": "limited"}, {})
    check("none is left", (await done("all", "GET", "usermgmt/getAllUsers", None))["application_users"], [])


async def others():
    """What Memphis's pages ask on the way: answered with nothing, or refused with a text."""
    for method, route, body in (
        ("PUT", "editAnalytics", {"send_analytics": False}),
        ("POST", "doneNextSteps", {}),
        ("POST", "skipGetStarted", {"username": USER}),
        ("POST", "sendTrace", {"trace_name": "x", "trace_params": {}}),
        ("DELETE", "removeCompanyLogo", None),
    ):
        await done(route, method, f"usermgmt/{route}", body, {})
    await done("no logo", "GET", "usermgmt/getCompanyLogo", None, {"image": ""})
    await refused("none is kept", 406, "PUT", "usermgmt/editCompanyLogo", {"file": "x"})
    await done("no tags", "GET", "tags/getTags", {"entity_type": "station"}, [])
    await done("none used", "GET", "tags/getUsedTags", None, [])
    await done("no integrations", "GET", "integrations/getAllIntegrations", None, [])
    await done("functions", "GET", "functions/getAllFunctions", None, {"scm_integrated": False, "other": [], "installed": [], "connected_repos": []})
    for method, path, body in (
        ("PUT", "tags/updateTagsForEntity", {"tags_to_add": [{"name": "a", "color": "1, 2, 3"}], "entity_type": "station", "entity_name": "x"}),
        ("DELETE", "tags/removeTag", {"name": "a"}),
        ("POST", "integrations/updateIntegration", {"name": "s3", "keys": {}}),
        ("DELETE", "integrations/disconnectIntegration", {"name": "s3"}),
        ("GET", "integrations/getIntegrationDetails", {"name": "s3"}),
        ("GET", "integrations/getAuditLogs", {"name": "s3"}),
        ("GET", "integrations/getSourceCodeBranches", None),
        ("POST", "integrations/requestIntegration", {"request_content": "x"}),
        ("GET", "monitoring/downloadSystemLogs", None),
    ):
        check(f"{path} says why not", len(await refused(path, 406, method, path, body)) > 20, True)


async def scenario(memphis, js):
    use((await log_in(USER, PASSWORD))[1]["jwt"])
    await making()
    await listing()
    shop, boss = await using(memphis)
    again = await changing(memphis, shop, boss)
    await removing(again, boss)
    await others()


run(scenario)
