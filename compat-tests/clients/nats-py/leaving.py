"""What a server says of its health while it sends its clients elsewhere."""

import os
import signal
import urllib.error
import urllib.request

from scenario import eventually, note, run


def health(query=""):
    try:
        with urllib.request.urlopen(os.environ["MONITORING_URL"] + "/healthz" + query) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]


async def scenario(nc):
    note("before", health())
    os.kill(int(os.environ["SERVER_PID"]), signal.SIGUSR2)

    async def is_leaving():
        return health()[0] != 200

    await eventually("the server is leaving", is_leaving)
    for query in ("", "?details=1", "?js-enabled-only=true", "?stream=x"):
        note(f"leaving {query}", health(query))
    await nc.flush()
    note("still served", nc.is_connected)


run(scenario)
