"""The least that a job takes: the same three exchanges and the SHA-256, with no record, check, retry or limit.

`python -m tests.benchmarks.bare_aiohttp URL COUNT CONCURRENCY` prints the CPU seconds that they took.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time

import aiohttp
import uvloop


async def run_one(session: aiohttp.ClientSession, url: str, number: int) -> None:
    async with session.post(f"{url}/api/images/generate", json={"prompt": "a lake at dawn"}) as response:
        image_url = json.loads(await response.read())["images"][0]["image_url"]
    async with session.get(image_url) as response:
        content = await response.read()
    headers = {"x-amz-content-sha256": hashlib.sha256(content).hexdigest()}
    async with session.put(f"{url}/images/{number}.jpg", data=content, headers=headers) as response:
        await response.read()


async def run(url: str, count: int, concurrency: int) -> float:
    """Run so many jobs, after one to warm up; returns the CPU seconds that they took."""
    numbers = iter(range(count))

    async def run_some(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            await run_one(session, url, number)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await run_one(session, url, count)
        before = time.process_time()
        await asyncio.gather(*(run_some(session) for _ in range(concurrency)))
        return time.process_time() - before


if __name__ == "__main__":
    print(uvloop.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
