"""The bare opponent: the same three exchanges and the SHA-256 and nothing else. No record, no check, no retry, no limit.

`python -m tests.benchmarks.bare_aiohttp URL COUNT CONCURRENCY` prints the CPU seconds that it used for them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time

import aiohttp
import uvloop


async def one(session: aiohttp.ClientSession, url: str, number: int) -> None:
    async with session.post(f"{url}/api/images/generate", json={"prompt": "a lake at dawn"}) as answered:
        image_url = json.loads(await answered.read())["images"][0]["image_url"]
    async with session.get(image_url) as fetched:
        content = await fetched.read()
    headers = {"x-amz-content-sha256": hashlib.sha256(content).hexdigest()}
    async with session.put(f"{url}/pictures/{number}.jpg", data=content, headers=headers) as kept:
        await kept.read()


async def run(url: str, count: int, concurrency: int) -> float:
    """The CPU seconds of so many jobs, after one that warms up."""
    numbers = iter(range(count))

    async def some(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            await one(session, url, number)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await one(session, url, count)
        before = time.process_time()
        await asyncio.gather(*(some(session) for _ in range(concurrency)))
        return time.process_time() - before


if __name__ == "__main__":
    print(uvloop.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
