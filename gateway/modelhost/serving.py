"""What the model process does: one step after another, of the prediction that is due."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time

from structlog.typing import FilteringBoundLogger

from ai.errors import AiError
from ai.loaders import choose_device
from ai.model import Model
from gateway.logs import places
from gateway.modelhost.answers import Answers
from gateway.modelhost.memory import budget_bytes, is_lack_of_memory, release
from gateway.modelhost.models import Models, NotLoaded
from gateway.modelhost.protocol import (
    MEMORY_STAGE,
    Answer,
    Begin,
    Cancel,
    Hello,
    Line,
    Load,
    Loaded,
    Predict,
    Predicted,
    Refused,
    Stepped,
    Turn,
)
from gateway.modelhost.running import LAST_RUNG, Run, out_of_memory, refusal, too_large
from gateway.modelhost.sandbox import Sandbox
from gateway.modelhost.schedule import Schedule
from gateway.modelhost.warm import Admission

_TELL_EVERY_S = 0.05
_FRUGAL_RUNG = 2  # sums in main memory
_FRUGAL_SHARE = {"cuda": 4.0, "cpu": 1.5}
"""How many times too large an estimate may be for a run to be tried on a higher rung."""


class Host:
    """The models of one device, and the predictions that are under way on it."""

    def __init__(self, line: Line, begin: Begin, box: Sandbox, log: FilteringBoundLogger) -> None:
        self._line = line
        self._log = log
        self._deterministic = begin.deterministic
        self._attended = begin.attended
        if begin.deterministic:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when CUDA starts
        self._device = choose_device(begin.device)
        budget = begin.memory_bytes or budget_bytes(self._device)
        self._models = Models(self._device, budget)
        self._inbox: queue.SimpleQueue[tuple[Load | Predict | Cancel, tuple[int, ...]]] = queue.SimpleQueue()
        self._schedule = Schedule()
        self._answers = Answers()
        self._runs: dict[int, Run] = {}
        self._turn = Turn(0)
        self._told_s = 0.0
        others = _other_gpus(self._device) if begin.device == "auto" else ()
        self._send(Hello(os.getpid(), self._device, others, budget, **vars(box)))

    def serve(self) -> None:
        """Until the worker is gone."""
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        while True:
            self._take_requests()
            self._work()

    def _read(self) -> None:
        """Body of the reading thread; the end of the socket is the end of the process."""
        try:
            while (message := self._line.receive()) is not None:
                if isinstance(message, Predict):
                    self._inbox.put((message, self._line.take_handles(len(message.channels) + 1)))
                elif isinstance(message, Load | Cancel):
                    self._inbox.put((message, ()))
        finally:
            os._exit(0)

    def _take_requests(self) -> None:
        while True:
            try:
                request, handles = self._inbox.get(block=not len(self._schedule))
            except queue.Empty:
                return
            if isinstance(request, Cancel):
                self._cancel(request.id)
            elif isinstance(request, Load):
                self._load(request)
            else:
                self._runs[request.id] = Run(
                    request, handles, self._answers, deterministic=self._deterministic
                )
                self._schedule.add(request.id, request.priority, time.monotonic())

    # -- one piece of work --------------------------------------------------------------------

    def _work(self) -> None:
        """The next step of the first prediction in order that may go on."""
        for number in self._schedule.order(time.monotonic()):
            run = self._runs[number]
            if run.steps is None and (self._has_no_place(run) or not self._begin(run)):
                run.waits_for = self._models.warm.under_way
                continue
            if run.steps is not None:
                self._schedule.serve(number, time.monotonic())
                self._step(run)
            return

    def _has_no_place(self, run: Run) -> bool:
        """True while the same runs are under way beside which it could not begin."""
        return bool(run.waits_for) and run.waits_for == self._models.warm.under_way

    def _step(self, run: Run) -> None:
        self._say_turn(Turn(run.id, slow=run.slow))
        began_s = time.monotonic()
        try:
            step = run.step()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a model may raise anything
            self._failed(run, error)
            return
        now_s = time.monotonic()
        if isinstance(step, Predicted):
            self._end(run, step)
            return
        if step.stage == MEMORY_STAGE:
            self._free_for(run)
        if step.stage == MEMORY_STAGE or now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            self._send(Stepped(run.id, str(step.stage), float(step.fraction), now_s - began_s))

    def _begin(self, run: Run) -> bool:
        """Load the model and make room; False while the run waits for another one to end."""
        warm, request = self._models.warm, run.request
        if run.alone and warm.runs:
            return False
        try:
            model = self._loaded(request)
            if model is None:
                return False
            self._say_turn(Turn(run.id, slow=True))  # from here on its code is run
            needed = run.needed_bytes(model)
            admission = warm.admit(run.id, request.digest, needed)
            if admission is Admission.LATER:
                return False
            if admission is Admission.NEVER:
                most = warm.free_bytes * _FRUGAL_SHARE[self._device.partition(":")[0]]
                if needed > most:
                    self._end(run, too_large(run, self._device, needed, warm.free_bytes))
                    return True
                run.start_again(max(run.rung, _FRUGAL_RUNG))
                warm.begin(run.id, request.digest, needed)
            run.begin(model)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - loading runs what a card names
            self._failed(run, error)
        return True

    def _loaded(self, request: Load | Predict) -> Model | None:
        if request.digest not in self._models.warm:
            self._say_turn(Turn(request.id, loading=request.card))
        pinned = isinstance(request, Load) and request.pinned
        return self._models.get(request.card, request.folders, request.digest, pinned=pinned)

    def _load(self, request: Load) -> None:
        try:
            self._loaded(request)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - loading runs what a card names
            self._send(self._named(request.id, error))
        else:
            self._send(Loaded(request.id, self._models.warm.weight_bytes))
        self._say_turn(Turn(0))

    # -- too little memory --------------------------------------------------------------------

    def _free_for(self, run: Run) -> None:
        """Let every model go that no run uses."""
        self._log.warning("memory_short", device=self._device, card=run.request.card, rung=run.rung)
        self._models.warm.drop_idle(run.request.digest)
        release(self._device)

    def _try_again(self, run: Run, error: BaseException) -> bool:
        """After a lack of memory: from the start, with less, and alone on the device."""
        climbed_itself = isinstance(error, AiError) and error.code == "OUT_OF_MEMORY"
        if not (climbed_itself or is_lack_of_memory(error)):
            return False
        error.__traceback__ = None  # its frames hold the tensors
        shared = len(self._models.warm) > 1 or self._models.warm.runs > 1
        if (run.alone and (climbed_itself or run.rung >= LAST_RUNG)) or (climbed_itself and not shared):
            return False
        run.start_again(0 if climbed_itself else run.rung + 1)
        self._models.warm.end(run.id)
        self._free_for(run)
        run.alone = True
        return True

    # -- ends ---------------------------------------------------------------------------------

    def _failed(self, run: Run, error: BaseException) -> None:
        if self._try_again(run, error):
            return
        lacking = is_lack_of_memory(error)
        self._end(run, out_of_memory(run, self._device) if lacking else self._named(run.id, error))
        if lacking:
            release(self._device)

    def _cancel(self, number: int) -> None:
        if run := self._runs.get(number):
            self._end(run, Refused(number, "cancelled", "CANCELLED", "The run was cancelled."))

    def _end(self, run: Run, answer: Answer) -> None:
        try:
            run.close()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - what a model does when it is ended is its own
            self._named(run.id, error)
        self._models.warm.end(run.id)
        self._schedule.remove(run.id)
        del self._runs[run.id]
        self._send(answer)
        if self._turn.id == run.id:
            self._say_turn(Turn(0))

    def _named(self, number: int, error: BaseException) -> Refused:
        if isinstance(error, NotLoaded):
            return Refused(number, "model", error.code, error.reason)
        if not isinstance(error, AiError):
            self._log.error("model_error", error=type(error).__name__, places=places(error))
        return refusal(number, error, attended=self._attended)

    def _say_turn(self, turn: Turn) -> None:
        if turn != self._turn:
            self._turn = turn
            self._send(turn)

    def _send(self, answer: Answer) -> None:
        try:
            self._line.send(answer)
        except OSError:
            os._exit(0)  # nobody waits for us any more


def _other_gpus(first: str) -> tuple[str, ...]:
    if not first.startswith("cuda"):
        return ()
    return tuple(f"cuda:{number}" for number in range(1, sys.modules["torch"].cuda.device_count()))
