"""Logging in: a user, a password, and then a shell's prompt."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import ClassVar

from pytest_hil.board.boot.stage import Refused, Way
from pytest_hil.config.driver import Secret, key, secret
from pytest_hil.config.values import regex, text
from pytest_hil.console.session import CURSOR_REPORT

# Seconds of silence after which the return key is tried: a login prompt may have been shown before,
# or the kernel's messages stand where it was.
_SILENCE = 5.0
# Seconds that a shell at its prompt may take.
_ANSWER = 5.0
_SOON = 1.0


@dataclass(frozen=True, slots=True)
class LoginOptions:
    """Keys of a ``boot`` table with ``driver = "login"``."""

    user: str = key(text, default="root", help="who logs in")
    password: Secret | None = key(secret, default=None, help='where it is: {env = "NAME"}')
    login: str = key(regex, default=r"login: ?\Z", help="the prompt for the user")
    ask: str = key(regex, default=r"[Pp]assword: ?\Z", help="the prompt for the password")
    prompt: str = key(regex, default=r"(?m)^[^\n#$]*[#$] \Z", help="the shell's prompt")
    refused: str = key(regex, default=r"Login incorrect", help="what a wrong password is told")


class Login:
    """The stage ``shell``."""

    Options: ClassVar[type] = LoginOptions
    state: ClassVar[str] = "shell"

    def __init__(self, options: LoginOptions) -> None:
        self._options = options

    @property
    def passable(self) -> bool:
        return False

    @property
    def signs(self) -> tuple[str, ...]:
        """What is only said before this stage: whoever was here is not any more."""
        return (self._options.login,)

    def enter(self, way: Way) -> None:
        own = self._options
        patterns = [own.prompt, own.login, own.ask, own.refused]
        asked, logins = False, 0
        while way.left:
            match way.expect_or_none(patterns, _SILENCE):
                case 0:
                    # Much looks like a prompt; only a shell can count.
                    if self._counts(way):
                        return
                case 1:
                    logins += 1
                    way.sendline(own.user)
                case 2:
                    if own.password is None:
                        raise Refused(
                            f"a password is asked of {own.user}, and none is known",
                            mend='add password = {env = "NAME"} to its boot table',
                        )
                    way.sendline(own.password.reveal())
                    asked = True
                case 3:
                    which = "the password is wrong" if asked else "it is not let in"
                    raise Refused(f"{which} (user {own.user})")
                case _:
                    way.sendline("")
        if logins:
            times = "once" if logins == 1 else f"{logins} times"
            raise Refused(
                f"it asked {times} who logs in, and {own.prompt!r} did not come within "
                f"{way.timeout:g} s",
                mend="does it restart again and again, or is its shell's prompt another?",
            )
        raise Refused(f"neither {own.login!r} nor {own.prompt!r} came within {way.timeout:g} s")

    def _counts(self, way: Way, within: float = _ANSWER) -> bool:
        """Whether a shell answers, and is back at its prompt."""
        number = secrets.randbelow(10**6)
        way.sendline(f" echo hil$(({number}+1000000))")
        if way.expect_or_none([rf"hil{number + 10**6}\n", self._options.login], within) != 0:
            return False
        return way.expect_or_none([self._options.prompt], _ANSWER) == 0

    def leave(self, way: Way) -> None:
        way.sendline("exit")

    def here(self, way: Way) -> bool:
        # ^U: what somebody left on the line is not to be run. ^C ends what they left running.
        if re.search(self._options.prompt, way.console.tail(1)):
            # Nothing came after its prompt. Busybox takes 20 ms for each line: this saves one.
            way.send(b"\x15")
            if self._counts(way, _SOON):
                return True
        before = way.console.mark()
        # Its prompt may have asked where the cursor is before anybody listened. Only on an empty
        # line: where nobody has, an escape may be vi's, and ^U leaves what is behind the cursor.
        asked = way.console.cursor_report
        way.send(b"\x15\r" if asked else b"\x15" + CURSOR_REPORT + b"\x15\r")
        match way.expect_or_none([self._options.prompt, self._options.login], _SOON):
            case 1:
                # Who has just begun to ask does so again when they come to our return key: a name
                # that is sent in between would meet another question.
                while way.expect_or_none([self._options.login], _SOON / 2) is not None:
                    pass
                way.console.rewind(before)  # whoever logs in next need not wait for it
                return False
            case None:
                way.send(b"\x03\r")
                # What a shell would be told may be somebody's name at a login prompt yet to come.
                if way.expect_or_none([self._options.prompt, self._options.login], _ANSWER) != 0:
                    return False
        return self._counts(way)
