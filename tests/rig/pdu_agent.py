"""PDUs' tables and what they do, for an agent that speaks SNMP (pytest_hil.rig.pdu_agent).

The numbers are of PowerNet-MIB, PDU2-MIB and EATON-EPDU-MIB, written down here once more and by
their tables, so that a wrong one of the drivers' is seen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outlets:
    """What a PDU's tables show of its outlets, ``(unit, outlet)``, and what they do when set."""

    # Seconds from a command until the relay has moved.
    delay: float = 0.0
    stuck: bool = False
    # An SNMP error, of pysnmp.smi.error, for all that is set.
    failing: str = ""
    states: dict[tuple[int, int], bool] = field(
        default_factory=lambda: {
            (unit, outlet): False for unit in (0, 1, 2) for outlet in (1, 2, 8)
        }
    )
    _moves: list[tuple[float, tuple[int, int], bool]] = field(default_factory=list)

    def tell(self, outlet: tuple[int, int], on: bool) -> None:
        if not self.stuck:
            self._moves.append((time.monotonic() + self.delay, outlet, on))

    def now(self, outlet: tuple[int, int]) -> bool:
        for when, which, on in [*self._moves]:
            if when <= time.monotonic():
                self.states[which] = on
                self._moves.remove((when, which, on))
        return self.states[outlet]

    def pending(self, outlet: tuple[int, int]) -> bool:
        self.now(outlet)
        return any(which == outlet for _, which, _ in self._moves)


class Apc(Outlets):
    """sPDUOutletCtl: one column for both; a single PDU."""

    COLUMN = (318, 1, 1, 4, 4, 2, 1, 3)

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        outlet = (1, oid[-1])
        if oid[:-1] != self.COLUMN or outlet not in self.states:
            return None
        return 1 if self.now(outlet) else 2

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if self.get(oid) is None or value not in (1, 2):
            return False
        self.tell((1, oid[-1]), value == 1)
        return True


class Apc2(Outlets):
    """rPDU2OutletSwitchedControlCommand: on(1), off(2); …StatusState: off(1), on(2)."""

    COMMAND = (318, 1, 1, 26, 9, 2, 4, 1, 5)
    STATE = (318, 1, 1, 26, 9, 2, 3, 1, 5)

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        outlet = (1, oid[-1])
        if outlet not in self.states or oid[:-1] not in (self.COMMAND, self.STATE):
            return None
        on = self.now(outlet)
        return (2 if on else 1) if oid[:-1] == self.STATE else (1 if on else 2)

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if oid[:-1] != self.COMMAND or self.get(oid) is None or value not in (1, 2):
            return False
        self.tell((1, oid[-1]), value == 1)
        return True


class Raritan(Outlets):
    """switchingOperation: off(0), on(1); outletSwitchingState: on(7), off(8)."""

    OPERATION = (13742, 6, 4, 1, 2, 1, 2)
    STATE = (13742, 6, 4, 1, 2, 1, 3)

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        outlet = (oid[-2], oid[-1])
        # Its pduId begins with 1.
        if outlet not in self.states or oid[-2] == 0:
            return None
        if oid[:-2] == self.STATE:
            return 7 if self.now(outlet) else 8
        return int(self.now(outlet)) if oid[:-2] == self.OPERATION else None

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if oid[:-2] != self.OPERATION or self.get(oid) is None or value not in (0, 1):
            return False
        self.tell((oid[-2], oid[-1]), value == 1)
        return True


class Eaton(Outlets):
    """outletControlStatus: off(0), on(1), pendingOff(2), pendingOn(3); …OffCmd, …OnCmd: seconds."""

    STATUS = (534, 6, 6, 7, 6, 6, 1, 2)
    OFF = (534, 6, 6, 7, 6, 6, 1, 3)
    ON = (534, 6, 6, 7, 6, 6, 1, 4)

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        outlet = (oid[-2], oid[-1])
        if outlet not in self.states:
            return None
        if oid[:-2] == self.STATUS:
            on = self.now(outlet)
            return (2 if on else 3) if self.pending(outlet) else int(on)
        return -1 if oid[:-2] in (self.OFF, self.ON) else None

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if oid[:-2] not in (self.OFF, self.ON) or self.get(oid) is None or value != 0:
            return False
        self.tell((oid[-2], oid[-1]), oid[:-2] == self.ON)
        return True


class Words(Outlets):
    """Nobody's: a column of strings."""

    COLUMN = (99999, 1)

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        if oid[:-1] != self.COLUMN or (1, oid[-1]) not in self.states:
            return None
        return "läuft" if self.now((1, oid[-1])) else "aus"

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if self.get(oid) is None or value not in (b"an", b"aus"):
            return False
        self.tell((1, oid[-1]), value == b"an")
        return True
