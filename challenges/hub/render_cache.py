"""What was rendered is kept, and rendered once however many ask for it at the same time."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor

from challenges.hub.rendering import Order


class TooSlow(Exception):
    """A render took longer than the hub waits."""


class RenderCache:
    """A cache of packed apps, least recently used out first.

    Parameters
    ----------
    make : Callable[[Order], bytes]
        Makes what an order asks for; called in the executor.
    executor : Executor
        Where it is called.
    max_bytes : int
        How much is kept.
    seconds : float
        How long one request waits for a render.
    """

    def __init__(
        self, make: Callable[[Order], bytes], executor: Executor, max_bytes: int, seconds: float
    ) -> None:
        self._make = make
        self._executor = executor
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._kept: OrderedDict[Order, bytes] = OrderedDict()
        self._making: dict[Order, asyncio.Future[bytes]] = {}
        self._bytes = 0

    async def get(self, order: Order) -> bytes:
        """What the order asks for, from the cache or newly made.

        Raises
        ------
        TooSlow
            If it is not there in time. It is made all the same, for the next who asks.
        Exception
            What making it raises.
        """
        if order in self._kept:
            self._kept.move_to_end(order)
            return self._kept[order]
        if order not in self._making:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._executor, self._make, order)
            self._making[order] = future
            future.add_done_callback(lambda done: self._keep(order, done))
        try:
            # One who stops waiting must not cancel the render the others wait for.
            return await asyncio.wait_for(asyncio.shield(self._making[order]), self._seconds)
        except TimeoutError as error:
            raise TooSlow from error

    def _keep(self, order: Order, done: asyncio.Future[bytes]) -> None:
        self._making.pop(order, None)
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[order] = done.result()
        self._bytes += len(done.result())
        while self._bytes > self._max_bytes and self._kept:
            _, old = self._kept.popitem(last=False)
            self._bytes -= len(old)
