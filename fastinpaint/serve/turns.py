"Whose turn it is on the page: one job at a time, and visitors in turn, however many jobs one of them has"
import asyncio
from collections import Counter, deque

from ..core.limits import Limits, Stopped


class Turns:
    """Runs jobs in a thread, one at a time, each with a budget of `seconds` and `memory` (bytes).

    Of those that wait, every address has a turn before one has its next. Of an address `most`, and of a
    session `each`, may wait or run; more raise Stopped."""
    def __init__(self, seconds, memory, most=20, each=2):
        self.seconds, self.memory, self.most, self.each = seconds, memory, most, each
        self.waiting, self.running = {}, None  # address → tickets; a ticket
        self.jobs = {}                         # ticket → whose it is, and its limits while it runs

    async def run(self, work, address, session, tell=lambda done, of: None):
        """What `work()` gives, and its exceptions. Cancelled, or by `leave`, it stops at its next `go_on`.

        `tell(done, of)` hears of its steps, from its thread.
        Raises Stopped where it is left, takes too long, or too many of the visitor's jobs are under way."""
        ticket = self._joined(address, session)
        try:
            await ticket
            limits = self.jobs[ticket]["limits"] = Limits(self.seconds, self.memory, tell)
            def limited():
                with limits.hold(): return work()
            job = asyncio.ensure_future(asyncio.to_thread(limited))
            job.add_done_callback(lambda job: self._over(ticket, job))
        except asyncio.CancelledError:
            self._over(ticket)
            raise Stopped("stopped") from None
        try: return await asyncio.shield(job)
        finally: limits.stop()  # of no use to anybody; its turn lasts until it has noticed

    def leave(self, session, at):
        "Stop the jobs of a visitor who has left `at` this time of the loop, waiting or running"
        for ticket, who in [*self.jobs.items()]:
            if who["session"] != session or who["since"] > at: continue
            if who["limits"]: who["limits"].stop()
            else: ticket.cancel()

    def _joined(self, address, session):
        for name, most in ("session", self.each), ("address", self.most):
            under_way = Counter(who[name] for who in self.jobs.values())
            if under_way[dict(session=session, address=address)[name]] >= most:
                raise Stopped(f"{most} of your requests are under way; wait for one of them")
        loop = asyncio.get_running_loop()
        ticket = loop.create_future()
        self.jobs[ticket] = dict(session=session, address=address, since=loop.time(), limits=None)
        self.waiting.setdefault(address, deque()).append(ticket)
        self._next()
        return ticket

    def _next(self):
        while self.running is None and self.waiting:
            address = next(iter(self.waiting))
            tickets = self.waiting.pop(address)
            ticket = tickets.popleft()
            if tickets: self.waiting[address] = tickets  # last in line by now
            if ticket.cancelled(): continue
            self.running = ticket
            ticket.set_result(None)

    def _over(self, ticket, job=None):
        if job and not job.cancelled(): job.exception()  # nobody may be there any more to ask for it
        self.jobs.pop(ticket, None)
        if self.running is ticket: self.running = None
        self._next()


class Presence:
    "Calls `gone(session, when)` where the last stream of events of a session is over for `grace` seconds"
    def __init__(self, gone, grace=1.):
        self.gone, self.grace, self.open = gone, grace, Counter()

    async def through(self, session, chunks):
        "The `chunks` of a stream, while somebody listens"
        self.open[session] += 1
        try:
            async for chunk in chunks: yield chunk
        finally:
            self.open[session] -= 1
            loop = asyncio.get_running_loop()
            loop.call_later(self.grace, self._look, session, loop.time())

    def _look(self, session, when):
        if self.open[session] > 0: return  # back for another event
        del self.open[session]
        self.gone(session, when)
