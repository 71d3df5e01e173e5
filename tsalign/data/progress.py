"""How far actors are inside their shards: told while they work, shown as rows in the terminal."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import ray
from upath import UPath

from tsalign.data.shards import row_count
from tsalign.runs.nodes import with_driver
from tsalign.runs.terminal import Bar

SECONDS = 0.5  # at least, between two messages of an actor, and between two looks of the driver


class Tally:
    """An actor that remembers which share of which shard is done, by pass."""

    def __init__(self) -> None:
        self.passes: dict[str, dict[str, float]] = defaultdict(dict)
        self.tries: dict[str, Counter[str]] = defaultdict(Counter)

    def begin(self, name: str, shard: str) -> int:
        """How often the shard was begun by now."""
        self.tries[name][shard] += 1
        return self.tries[name][shard]

    def tell(self, name: str, shard: str, share: float) -> None:
        """So much of a shard is done; a shard that was lost with its actor begins again from nothing."""
        self.passes[name][shard] = share

    def shares(self, name: str) -> dict[str, float]:
        """The shares of a pass by shard."""
        return self.passes[name]

    def forget(self, name: str) -> None:
        """A pass is over."""
        self.passes.pop(name, None)
        self.tries.pop(name, None)


class Progress:
    """What an actor says about the shard that it works on; called with the share done since the last call.

    Within a shard it never blocks, and a lost message does no harm: the next one reports the total share again.
    """

    def __init__(self, tally: Any, name: str) -> None:
        self.tally, self.name = tally, name

    def begin(self, shard: str) -> int:
        """A shard is begun; how often it was, by now: more than once where actors were lost while they worked on it."""
        self.shard, self.share, self.told = shard, 0.0, -math.inf
        return int(ray.get(self.tally.begin.remote(self.name, shard)))

    def __call__(self, share: float) -> None:
        self.share += share
        if time.monotonic() - self.told >= SECONDS:
            self._tell()

    def end(self) -> None:
        """The shard is done: the driver hears of its row only with the next one's."""
        self.share = 1.0
        self._tell()

    def _tell(self) -> None:
        self.told = time.monotonic()
        self.tally.tell.remote(self.name, self.shard, self.share)


@contextmanager
def shown(bar: Bar, shards: Sequence[UPath], committed: set[str]) -> Iterator[Progress]:
    """Show a pass over `shards` as rows done of all rows.

    Args:
        committed: names of the finished shards; the code that runs the pass adds to it.
    """
    session = ray.get_runtime_context()
    tally, name, over = _tally(session.get_session_name(), session.get_job_id()), uuid.uuid4().hex, threading.Event()
    follower = threading.Thread(target=_follow, args=(bar, shards, committed, tally, name, over), daemon=True)
    follower.start()
    try:
        yield Progress(tally, name)
    finally:
        over.set()
        follower.join()
        tally.forget.remote(name)


@lru_cache(maxsize=1)
def _tally(session: str, job: str) -> Any:
    """The driver's tally, on its node. One for all passes, as every actor is a process that has to start."""
    lasting = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tally)
    return lasting.options(scheduling_strategy=with_driver()).remote()


def _follow(
    bar: Bar, shards: Sequence[UPath], committed: set[str], tally: Any, name: str, over: threading.Event
) -> None:
    """Move the bar until the pass is over, or Ray is. Footers are read here, so that no work waits for them."""
    rows = {shard.name: row_count(shard) for shard in shards}
    bar.count(sum(rows.values()), "rows", done=sum(rows[shard] for shard in committed.copy()))
    with suppress(ray.exceptions.RayError):
        while not over.wait(SECONDS):
            asked = tally.shares.remote(name)
            if ray.wait([asked], timeout=SECONDS)[0]:
                shares = ray.get(asked) | dict.fromkeys(committed.copy(), 1.0)
                bar.move(sum(rows[shard] * min(share, 1.0) for shard, share in shares.items()))
    bar.move(sum(rows[shard] for shard in committed))
