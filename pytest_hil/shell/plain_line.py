"""Shell lines that need no shell."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./=-]+(?: +[A-Za-z0-9_@%+:,./=-]+)*")

# What a shell (dash, bash, busybox ash) knows itself, and what would show that it was there.
_SHELL_WORDS = frozenset(
    """
    . : [ [[ alias bg bind break builtin caller case cd chdir command compgen complete compopt
    continue coproc declare dirs disown do done elif else enable env esac eval exec exit export fc
    fg fi for function getopts hash help history if in jobs kill let local logout mapfile popd
    printenv printf pushd pwd read readarray readonly return select set shift shopt source suspend
    test then time times trap type typeset ulimit umask unalias unset until wait while
    """.split()  # noqa: SIM905
)


def plain_words(line: str) -> list[str] | None:
    """The words of a shell line that means the same without a shell; None if it needs one.

    As in make(1): a cold ``sh`` costs more than most commands that it starts. Only words
    with nothing in them to expand count, and only a first word that is no assignment and
    nothing that a shell knows itself; of the builtins that remain, ``true`` and ``false``
    are the same program, and ``echo`` is where no argument looks like an option.
    """
    if not _PLAIN.fullmatch(line):
        return None
    words = line.split()
    if "=" in words[0] or words[0] in _SHELL_WORDS:
        return None
    if words[0] == "echo" and any(word.startswith("-") for word in words):
        return None
    return words
