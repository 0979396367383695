"""A stand-in for the daemon, as a process: it runs the watchdog client on the charge given on its standard input until SIGTERM.

Its one argument says whether orders rest at its end (`rest` or `open`). It writes the client's status, a line a change.
"""

import asyncio
import itertools
import json
import signal
import sys

from daemon.watchdog import Charge, Watchdog


async def main() -> None:
    charge = Charge.from_line(sys.stdin.buffer.readline())
    steps, stop = itertools.count(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    watchdog = Watchdog(charge, lambda: next(steps), lambda: sys.argv[1] == "rest")
    told = None
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watchdog.run())
        while not stop.is_set():
            if told != watchdog.status:
                told = dict(watchdog.status)
                print(json.dumps(told), flush=True)
            await asyncio.sleep(0.02)
        watching.cancel()


asyncio.run(main())
