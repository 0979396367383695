"""One daemon that wants the lease, as a process: it writes down each moment at which it would have traded, and for how long that order could live.

    python -m tests.lease_contender PORT FILE SEED
"""

import asyncio
import os
import random
import sys
import time

from daemon.lease import Lease, Terms
from daemon.publish.lease_store import RedisLease
from daemon.publish.redis import RedisOptions, connect

TERMS = Terms(length_s=0.4, renew_s=0.08, margin_s=0.06)


async def contend(port: int, file: int, seed: int) -> None:
    chance, holder = random.Random(seed), f"{os.getpid()}-{seed}"
    store = RedisLease(connect(RedisOptions(f"redis://127.0.0.1:{port}", "lease", "", timeout_s=0.3)), "lease")
    lease = Lease(store, holder, time.monotonic, TERMS)
    while True:
        epoch = await lease.acquire(chance.randrange(3))
        await _trade(lease, file, holder, epoch, chance)


async def _trade(lease: Lease, file: int, holder: str, epoch: int, chance: random.Random) -> None:
    renewed, alive = time.monotonic(), 0.0
    while (left := lease.left_s()) > 0:
        now = time.monotonic()
        # What is signed here may reach the exchange until `now + left`, wherever this process is stopped after this line.
        if (left := min(left, lease.left_s())) > 0:
            os.write(file, f"{holder} {epoch} {now:.6f} {now + left:.6f}\n".encode())
            alive = now + left
        if now - renewed >= TERMS.renew_s:
            renewed = now
            await lease.renew()
        if chance.random() < 0.002:
            await asyncio.sleep(max(alive - time.monotonic(), 0.0))  # what was signed has to expire before the next one may begin
            await lease.release()
        if chance.random() < 0.002:
            time.sleep(chance.random() * 0.6)  # a loop that blocks
        await asyncio.sleep(0.004)


if __name__ == "__main__":
    written = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    asyncio.run(contend(int(sys.argv[1]), written, int(sys.argv[3])))
