"""What scenarios of fast batches share: the operations, and the answers as they come."""

import asyncio

from scenario import note

START, APPEND, COMMIT, COMMIT_BEFORE, PING = range(5)


class Answers:
    """What comes on the subjects of one inbox."""

    def __init__(self, inbox, patience, pause):
        self.inbox = inbox
        self.patience, self.pause = patience, pause
        self.queue = asyncio.Queue()

    @classmethod
    async def open(cls, nc, patience, pause):
        """Each answer is waited for `patience` seconds, and more of them for `pause`."""
        answers = cls(nc.new_inbox(), patience, pause)

        async def answered(message):
            await answers.queue.put(message.data.decode())

        await nc.subscribe(answers.inbox + ".>", cb=answered)
        return answers

    def reply(self, batch, flow, gap, seq, operation):
        """The reply subject of a message of a batch."""
        return f"{self.inbox}.{batch}.{flow}.{gap}.{seq}.{operation}.$FI"

    async def next(self, limit):
        return await asyncio.wait_for(self.queue.get(), limit)

    async def seen(self, label, count=1):
        """Prints so many answers, and what else came."""
        for _ in range(count):
            try:
                note(label, await self.next(self.patience))
            except asyncio.TimeoutError:
                note(label, "nothing")
        await asyncio.sleep(self.pause)
        while not self.queue.empty():
            note(label + ", too", self.queue.get_nowait())
