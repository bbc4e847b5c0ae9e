"""A model's one thread: whoever asks at the same time is answered from the same passes.

Rows join the running batch as soon as there is room, between two tokens; those of different callers take
turns, so that a caller with one row does not wait for one with ten thousand. What callers want scored while
a pass is under way is scored together in the next one. The thread ends when it has been idle, and starts
again with the next call.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from posterhall.extras import torch
from posterhall.models.batching import Batch, Row
from posterhall.models.prefixes import Prefixes
from posterhall.models.speculative import Draft, Speculation, Speculative

if TYPE_CHECKING:
    from posterhall.models.causal import CausalModel

IDLE = 1.0
"""Seconds without work after which the thread ends."""

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()

Listener = Callable[[Row, int], None]
"""Told, in its caller's loop, that a row has so many tokens now."""


class _Call:
    """What one caller waits for."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.cancelled = False

    def settle(self, error: BaseException | None) -> None:
        """In the caller's loop."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class _Drawing(_Call):
    """Rows to be drawn."""

    def __init__(self, rows: Sequence[Row], listener: Listener | None) -> None:
        super().__init__()
        self.waiting = deque(rows)
        self.left = len(rows)
        self.listener = listener


class _Pass(_Call):
    """Work that is done in pieces; of one kind, what several callers want can be one pass."""

    def __init__(self, kind: Callable[[list[Any]], Iterator[None]], items: list[Any]) -> None:
        super().__init__()
        self.kind = kind
        self.items = items


class Engine:
    """Does the work of a model for any number of coroutines, in any number of loops.

    Args:
        model: of any kind. Its prompts' beginnings are forgotten when its weights change.
        most_rows: rows decoded at once.
        most_tokens: tokens that their cache may come to hold.
        prefix_bytes: memory for the beginnings of recent prompts; 0 keeps none. A model that drafts gets as
            much again.
        draft: the model that drafts; None: none does.

    Attributes:
        speculation: what drafting has come to.
    """

    def __init__(
        self,
        model: CausalModel,
        *,
        most_rows: int,
        most_tokens: int,
        prefix_bytes: int,
        draft: Draft | None = None,
    ) -> None:
        self.model = model
        self.speculation = Speculation()
        self._draft = draft
        self._models = [model] if draft is None else [model, draft.model]
        self._prefixes, self._draft_prefixes = (
            Prefixes(prefix_bytes) if prefix_bytes else None for _ in range(2)
        )
        self._most_rows, self._most_tokens = most_rows, most_tokens
        self._batch = self._new_batch()
        self._weights: tuple[Any, ...] = ()
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        # From callers, under the lock:
        self._called: list[_Call] = []
        self._cancelled = self._closing = False
        # The thread's own:
        self._dropping = False  # somebody has been cancelled
        self._turns: deque[_Drawing] = deque()  # those with rows that are not in the batch yet
        self._owners: dict[Row, _Drawing] = {}  # of the rows in the batch
        self._passes: deque[_Pass] = deque()
        self._pass: tuple[Iterator[None], list[_Pass]] | None = None
        self._news: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
        _engines.add(self)

    async def draw(self, rows: Sequence[Row], listener: Listener | None = None) -> None:
        """Bring rows to their end; when cancelled, they leave the batch."""
        if rows:
            await self._wait(_Drawing(rows, listener))

    async def run(self, kind: Callable[[list[Any]], Iterator[None]], items: list[Any]) -> None:
        """Work through items in pieces, between which rows are drawn.

        Args:
            kind: takes items, also other callers' of the same kind, and does a piece of the work with each
                `next`; results stay with the items.
            items: with an error in one, all callers of the pass get it: check them before.
        """
        await self._wait(_Pass(kind, items))

    async def _wait(self, call: _Call) -> None:
        with self._lock:
            self._called.append(call)
            if self._thread is None or not self._thread.is_alive():  # a forked child has no threads
                self._thread = threading.Thread(target=self._work, name="posterhall-engine", daemon=True)
                self._thread.start()
            else:
                self._lock.notify()
        try:
            await call.future
        finally:
            if not call.future.done() or call.future.cancelled():
                with self._lock:
                    call.cancelled = self._cancelled = True
                    self._lock.notify()

    def end(self) -> None:
        """Stop after the piece of work that is under way."""
        with self._lock:
            self._closing = True
            thread = self._thread
            self._lock.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # -- in the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        with torch.no_grad():
            while self._gather():
                was_training = self.model.training
                self.model.eval()
                try:
                    self._advance()
                finally:
                    if was_training:
                        self.model.train()
                self._tell()

    def _gather(self) -> bool:
        """Take what callers want by now; wait for it if there is nothing to do. False ends the thread."""
        with self._lock:
            busy = self._turns or self._batch.rows or self._passes or self._pass
            while not busy and not self._called and not self._cancelled:
                if self._closing or not self._lock.wait(IDLE):
                    self._thread = None
                    return False
            if self._closing:
                return False
            called, self._called = self._called, []
            cancelled, self._cancelled = self._cancelled, False
        for call in called:
            if isinstance(call, _Drawing):
                self._turns.append(call)
            elif isinstance(call, _Pass):
                self._passes.append(call)
        self._dropping = cancelled
        return True

    def _drop(self) -> None:
        """Let go of what nobody waits for any more; a pass that has begun is finished."""
        self._turns = deque(call for call in self._turns if not call.cancelled)
        self._passes = deque(call for call in self._passes if not call.cancelled)
        out = [row for row, call in self._owners.items() if call.cancelled]
        for row in out:
            del self._owners[row]
        try:
            self._batch.leave(out)
        except BaseException as error:
            self._fail(error)

    def _advance(self) -> None:
        """One piece of a pass, and one token for every row."""
        if self._dropping:
            self._drop()
        if self._pass is None and self._passes:
            self._begin_pass()
        if self._pass is not None:
            self._go_on_with_pass()
        if not (self._turns or self._batch.rows):
            return
        try:
            if self._turns and len(self._batch.rows) < self._most_rows:
                self._admit()
            ended = self._batch.step()
        except BaseException as error:  # also what a thread must not die of: callers would wait for ever
            self._fail(error)
            return
        for row, call in self._owners.items():
            if call.listener is not None:
                self._later(call, functools.partial(call.listener, row, len(row.ids)))
        for row in ended:
            call = self._owners.pop(row)
            call.left -= 1
            if call.left == 0:
                self._settle(call, None)

    def _admit(self) -> None:
        """Let rows in, callers taking turns."""
        self._forget_if_changed()
        offered: list[_Drawing] = []

        def offers() -> Iterator[Row]:
            while self._turns:
                call = self._turns.popleft()
                offered.append(call)
                row = call.waiting.popleft()
                if call.waiting:
                    self._turns.append(call)
                refused.append(row)
                yield row
                refused.pop()

        refused: list[Row] = []
        admitted = self._batch.admit(offers())
        for row, call in zip(admitted, offered, strict=False):
            self._owners[row] = call
        if len(offered) > len(admitted):  # the last one has to wait, and is the first next time
            call = offered[-1]
            if call.waiting:
                self._turns.pop()
            call.waiting.appendleft(refused[-1])
            self._turns.appendleft(call)
        self._batch.join(admitted)

    def _begin_pass(self) -> None:
        kind = self._passes[0].kind
        calls = [call for call in self._passes if call.kind == kind]
        self._passes = deque(call for call in self._passes if call.kind != kind)
        self._pass = kind([item for call in calls for item in call.items]), calls

    def _go_on_with_pass(self) -> None:
        if self._pass is None:
            return
        pieces, calls = self._pass
        error: BaseException | None = None
        try:
            next(pieces)
            return
        except StopIteration:
            pass
        except BaseException as raised:
            error = raised
        self._pass = None
        for call in calls:
            self._settle(call, error)

    def _fail(self, error: BaseException) -> None:
        """Every caller whose rows were in the batch gets the error, and the batch begins anew."""
        calls = set(self._owners.values())
        self._owners.clear()
        self._batch = self._new_batch()
        self._turns = deque(call for call in self._turns if call not in calls)
        for call in calls:
            self._settle(call, error)

    def _forget_if_changed(self) -> None:
        if self._prefixes is None or self._draft_prefixes is None:
            return
        weights = tuple(
            (each.data_ptr(), each._version) for model in self._models for each in model.parameters()
        )
        if weights != self._weights:
            self._prefixes.clear()
            self._draft_prefixes.clear()
            self._weights = weights

    def _new_batch(self) -> Batch:
        limits = {"most_rows": self._most_rows, "most_tokens": self._most_tokens}
        if self._draft is None:
            return Batch(self.model, **limits, prefixes=self._prefixes)
        return Speculative(
            self.model,
            self._draft,
            **limits,
            prefixes=self._prefixes,
            draft_prefixes=self._draft_prefixes,
            counts=self.speculation,
        )

    def _settle(self, call: _Call, error: BaseException | None) -> None:
        self._later(call, lambda: call.settle(error))

    def _later(self, call: _Call, action: Callable[[], None]) -> None:
        self._news.setdefault(call.loop, []).append(action)

    def _tell(self) -> None:
        """Bring the news to the callers' loops: waking a loop costs as much as a row's step, so once."""
        news, self._news = self._news, {}
        for loop, actions in news.items():
            try:
                loop.call_soon_threadsafe(_do_all, actions)
            except RuntimeError:  # closed meanwhile: nobody waits there
                continue


def _do_all(actions: Sequence[Callable[[], None]]) -> None:
    for action in actions:
        action()


@atexit.register
def _end_all() -> None:
    """A thread that the interpreter finds within torch when it shuts down takes the process with it."""
    for engine in list(_engines):
        engine.end()
