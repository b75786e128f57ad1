import asyncio
import threading

import pytest

from fastinpaint.core.limits import Stopped, go_on, memory_limit, told
from fastinpaint.serve.turns import Presence, Turns


def until_stopped(started):
    started.set()
    while True: go_on()


def test_visitors_take_turns_however_many_jobs_one_has():
    done, first = [], threading.Event()

    async def all_of_them():
        turns = Turns(60, 10**9, each=9)
        jobs = [asyncio.ensure_future(turns.run(first.wait, "abuser", "abuser"))]
        def join(name, who):
            jobs.append(asyncio.ensure_future(turns.run(lambda: done.append(name), who, who)))
        for i in range(8): join(f"abuser {i}", "abuser")
        await asyncio.sleep(.01)
        for name in "bc": join(name, name)
        await asyncio.sleep(.01)
        first.set()
        await asyncio.gather(*jobs)
        assert not turns.jobs and not turns.waiting and turns.running is None
    asyncio.run(all_of_them())
    assert done[:3] == ["abuser 0", "b", "c"] and len(done) == 10


def test_one_visitor_has_so_many_jobs_and_no_more():
    async def joined():
        turns, hold = Turns(60, 10**9, most=3, each=2), threading.Event()
        jobs = [asyncio.ensure_future(turns.run(hold.wait, "home", s)) for s in ("a", "a", "b")]
        await asyncio.sleep(.01)
        for session, most in ("a", 2), ("c", 3):
            with pytest.raises(Stopped, match=f"{most} of your requests are under way"):
                await turns.run(hold.wait, "home", session)
        other = asyncio.ensure_future(turns.run(lambda: 7, "elsewhere", "d"))
        hold.set()
        assert await other == 7 and len(await asyncio.gather(*jobs)) == 3
        assert await turns.run(lambda: 8, "home", "a") == 8
    asyncio.run(joined())


def test_jobs_of_the_departed_stop_and_others_have_their_turn():
    async def left():
        turns, started = Turns(60, 10**9), threading.Event()
        running = asyncio.ensure_future(turns.run(lambda: until_stopped(started), "a", "a"))
        waiting = asyncio.ensure_future(turns.run(lambda: pytest.fail("it ran"), "a", "a"))
        other = asyncio.ensure_future(turns.run(memory_limit, "b", "b"))
        await asyncio.to_thread(started.wait)
        turns.leave("a", asyncio.get_running_loop().time())
        assert await other == 10**9
        for job in running, waiting:
            with pytest.raises(Stopped): await job
    asyncio.run(left())


def test_a_cancelled_job_keeps_its_turn_until_its_thread_has_ended():
    async def cancelled():
        turns, started, hold = Turns(60, 10**9), threading.Event(), threading.Event()
        def work():
            started.set()
            hold.wait()
            go_on()
        running = asyncio.ensure_future(turns.run(work, "a", "a"))
        await asyncio.to_thread(started.wait)
        running.cancel()
        with pytest.raises(asyncio.CancelledError): await running
        other = asyncio.ensure_future(turns.run(lambda: 7, "b", "b"))
        await asyncio.sleep(.05)
        assert not other.done()
        hold.set()
        assert await other == 7
    asyncio.run(cancelled())


def test_a_job_ends_with_its_seconds_and_its_own_errors_pass():
    async def late():
        turns = Turns(0, 10**9)
        with pytest.raises(Stopped, match="more than 0 seconds"):
            await turns.run(lambda: until_stopped(threading.Event()), "a", "a")
        with pytest.raises(ZeroDivisionError): await turns.run(lambda: 1/0, "a", "a")
        assert await turns.run(lambda: 7, "a", "a") == 7
    asyncio.run(late())


def test_a_job_that_was_begun_after_its_visitors_last_stream_goes_on():
    async def joined():
        turns, hold = Turns(60, 10**9), threading.Event()
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(.01)
        job = asyncio.ensure_future(turns.run(hold.wait, "a", "a"))
        await asyncio.sleep(.01)
        turns.leave("a", before)
        hold.set()
        assert await job
    asyncio.run(joined())


def test_who_comes_back_in_time_has_not_left():
    async def come_and_go():
        left = []
        presence = Presence(lambda session, when: left.append(session), grace=.05)
        async def events():
            for i in range(2): yield i
        assert [o async for o in presence.through("a", events())] == [0, 1]
        stays = presence.through("a", events())
        assert await anext(stays) == 0
        await asyncio.sleep(.1)
        assert not left
        await stays.aclose()  # as a server does where the visitor hangs up
        await asyncio.sleep(.1)
        assert left == ["a"] and not presence.open
    asyncio.run(come_and_go())


def test_steps_of_a_job_are_told():
    heard = []
    async def job():
        await Turns(60, 10**9).run(lambda: [*told("ab")], "a", "a", tell=lambda *o: heard.append(o))
    asyncio.run(job())
    assert heard == [(0, 2), (1, 2)]
