"""A console's last lines without the words of a serial shell."""

from __future__ import annotations

from pytest_hil.shell.serial_trace import without

SAID = r"""
rig1 login: root
Password:
# echo hil$((801059+1000000))
hil1801059
# rm -rf /tmp/.hil-a118a3a1; mkdir -m 700 /tmp/.hil-a118a3a1; cd /tmp/.hil-a118
a3a1
#  mkfifo f g; cat > h << 'END'
> n=$1; d=${0%/*}; W=$PWD; set -f; cd "$d" || exit
[   12.345678] usb 1-1: new high-speed USB device
> k) read -r P <p; read -r H <z; { kill -9 -$P || kill -9 $P || kill $H; } 2>/de
v/null;;
> END
#  cd - > /dev/null
@a118a3a1 17 I 3357593246 2264 ~ I 3357593246 2264 .
# sh /tmp/.hil-a118a3a1/h fd63a578
@fd63a578 14 K base64 cksum ~ K base64 cksum .
bootcount: boot 1 of 3
@fd63a578 9 E 1 0 - - ~ E 1 0 - - .
@fd63a578 D o 1 Y2F0OiBjYW4ndCBvcGVu .
[   13.000000] the kernel's @fd63a578 1 Q ~ Q .
# done
""".strip()


def test_only_the_boards_own_words_stay() -> None:
    assert without(SAID).splitlines() == [
        "rig1 login: root",
        "Password:",
        "[   12.345678] usb 1-1: new high-speed USB device",
        "bootcount: boot 1 of 3",
        "[   13.000000] the kernel's ",
        "# done",
    ]


def test_what_has_no_shell_stays_as_it_is() -> None:
    assert without("a\n\n b \r\n") == "a\n\n b \r\n"
    assert without("mail to root@example.org\n# ls").splitlines() == [
        "mail to root@example.org",
        "# ls",
    ]
