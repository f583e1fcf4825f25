"""A server of a scenario's own: how it is told to take any free ports, and where it listens."""

import glob
import json

from scenario import eventually

FACES = ("p", "m", "-memphis_port", "-ws_port", "-rest_port", "-api_port", "-metrics_port")
ANY_PORTS = [part for face in FACES for part in (f"-{face}", "-1")]


async def listening(folder):
    """The first address of each face, once the server has written its ports file into `folder`."""
    urls = {}

    async def written():
        for name in glob.glob(f"{folder}/*.ports"):
            with open(name, encoding="utf-8") as file:
                try:
                    listed = json.load(file)
                except ValueError:
                    return False
            urls.update({face: found[0] for face, found in listed.items() if found})
        return bool(urls)

    await eventually("a server of its own", written, 30)
    return urls
