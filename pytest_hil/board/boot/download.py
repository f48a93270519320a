"""A file into a board's memory over its console, by X- or YMODEM."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator

from pytest_hil.console.session import Console
from pytest_hil.errors import ChannelLost, TransferError
from pytest_hil.shell.xmodem import Sender, State

# Seconds from a receiver's word to ours. Some empty their input once they have spoken (lrzsz does,
# after every ACK), which no wire is fast enough to notice; a virtual one is.
_GAP = 0.003


@contextlib.contextmanager
def receiver(console: Console) -> Iterator[Callable[[Sender], None]]:
    """Gives what sends to whoever is at the console, who may be told to receive inside of it: not
    one byte of what it says from here on is missed. Raises TransferError, ChannelLost.
    """
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    unsubscribe = console.subscribe(heard.put)

    def send(sender: Sender) -> None:
        try:
            while not sender.over:
                try:
                    data = heard.get(timeout=sender.patience)
                except queue.Empty:
                    console.send(sender.silence())
                    continue
                if not data:
                    raise ChannelLost(f"the console of {console.name} ended")
                # What came meanwhile, too: to several requests there is one answer.
                with contextlib.suppress(queue.Empty):
                    while more := heard.get_nowait():
                        data += more
                if answer := sender.receive(data):
                    time.sleep(_GAP)
                    console.send(answer)
        finally:
            if not sender.over:
                with contextlib.suppress(ChannelLost):
                    console.send(sender.cancel())
        if sender.state is State.FAILED:
            lines = "\n".join(f"    {line}" for line in console.tail(4).splitlines())
            raise TransferError(
                f"{console.name} did not receive the file: {sender.error}; the console's last "
                f"lines:\n{lines}",
                mend="a lower baud rate, or flow control (rtscts)?",
            )

    try:
        yield send
    finally:
        unsubscribe()
