"""Requests below `$JS.API.`, as the scenarios of streams make them."""

import json

from scenario import eventually


class Api:
    def __init__(self, nc):
        self.nc = nc
        self.js = nc.jetstream()

    async def call(self, what, body=None):
        """The answer to a request."""
        data = b"" if body is None else json.dumps(body).encode()
        return json.loads((await self.nc.request("$JS.API." + what, data, timeout=5)).data)

    async def create(self, body):
        """Makes a stream."""
        answer = await self.call("STREAM.CREATE." + body["name"], body)
        assert "error" not in answer, answer
        return answer

    async def count(self, stream, messages):
        """Waits until a stream holds so many messages."""
        async def has():
            return (await self.js.stream_info(stream)).state.messages == messages
        await eventually(f"{messages} messages in {stream}", has)
