"""A line that is run without a shell does what it does with one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.shell.agent import AgentShell
from pytest_hil.shell.plain_line import plain_words

PLAIN = [
    "true",
    "false",
    "echo one  two",
    "echo a=b ./x,y 50% user@host",
    "ls /",
    "uname -s",
    "no-such-program with words",
    "./no-such-program",
    "/etc/passwd",
    "/etc",
    "cat /no/such/file",
    "sleep 0",
    "script-without-interpreter word",
    "not-executable",
    "sh -c exit",
]

NEEDS_A_SHELL = [
    "",
    " ",
    "a|b",
    "a;b",
    "a&",
    "a>b",
    "a<b",
    "echo $HOME",
    "echo `a`",
    "echo 'a'",
    'echo "a"',
    "echo a\\n",
    "echo *",
    "echo a?",
    "echo [a]",
    "echo {a,b}",
    "echo ~",
    "a=b",
    "a=b c",
    "a # b",
    "a\nb",
    "a\tb",
    "!a",
    "(a)",
    "cd /",
    "exit 3",
    "test -e /",
    "[ -e / ]",
    "pwd",
    "env",
    "kill 1",
    "printf a",
    "if true",
    "exec a",
    ". a",
    ": a",
    "echo -n a",
    "ulimit -n",
    " a",
    "a ",
    "echo ü",
]


@pytest.mark.parametrize("line", PLAIN)
def test_the_same_with_and_without_a_shell(shell: AgentShell, tmp_path: Path, line: str) -> None:
    (tmp_path / "script-without-interpreter").write_text("echo $0 $1 $PWD")
    (tmp_path / "script-without-interpreter").chmod(0o755)
    (tmp_path / "not-executable").write_text("echo no")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert plain_words(line) == line.split()
    directly = shell.run(line, check=False, env=env, cwd=str(tmp_path))
    by_shell = shell.run(["/bin/sh", "-c", line], check=False, env=env, cwd=str(tmp_path))
    assert directly.exit_code == by_shell.exit_code
    assert directly.stdout == by_shell.stdout
    assert directly.stderr == by_shell.stderr


@pytest.mark.parametrize("line", NEEDS_A_SHELL)
def test_needs_a_shell(line: str) -> None:
    assert plain_words(line) is None


@given(st.text(st.characters(max_codepoint=0x7F), max_size=20))
def test_never_with_anything_that_a_shell_would_expand(line: str) -> None:
    words = plain_words(line)
    assert words is None or not set(line) & set("|&;<>()$`\\\"'*?[]{}#~!^\n\t\0")
