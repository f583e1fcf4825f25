"""A server whose configuration is written anew while clients stay connected."""

import os
import pathlib
import signal

from scenario import eventually

FILE = pathlib.Path(os.environ["SCENARIO_DIR"]) / "server.conf"
LOG = FILE.with_name("server.log")


async def reload(old, new):
    """Puts other words into the configuration; gives the lines the log says of it, and the text that
    was there before."""
    before = len(LOG.read_text())
    text = FILE.read_text()
    assert old in text, old
    FILE.write_text(text.replace(old, new))
    os.kill(int(os.environ["SERVER_PID"]), signal.SIGHUP)
    fresh = []

    async def is_done():
        fresh[:] = LOG.read_text()[before:].splitlines()
        return any("eload server configuration" in line or "eloaded server configuration" in line for line in fresh)

    await eventually("a reload", is_done, limit=30)
    return fresh, text


def said(line):
    """A line of the log without its time and level."""
    return line.split("] ", 2)[2]
