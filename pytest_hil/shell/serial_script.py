"""Our end of a serial shell on the target: a short script for any POSIX shell.

It lies in a directory of its own, beside the pipes ``f`` and ``g``. It is typed into the login
shell once, and started there for each command. While it runs, the terminal is raw, and it speaks in
frames (:mod:`pytest_hil.shell.serial_frames`): what a command says goes into files first, and comes
as numbered lines of base64 that can be asked for again.

A request is a line ``NONCE VERB ARGUMENTS``. An empty line ends the script, so that whoever finds a
console in which it was left behind gets the login shell back with the return key; others are noise.

====================  ==============================================================
``u LENGTH``          that many characters of base64 follow; answer ``U COUNT``
``q``                 how many of those it has had: ``U COUNT``
``f SUM SIZE NAME N`` decode what was uploaded and append it to the file NAME if its
                      sum is right: ``F N 1``, else ``F N 0``; once for each N
``t NAME``            empty the file NAME; answer ``T``
``r ID MAX``          run the file ``c``, its input the file ``i``; ``E`` at its end
``k``                 kill it and all its children
``s``                 where it stands: ``R`` while it runs, ``E …`` after it, else ``N``
``o NAME FROM TO``    lines of a stream, ``D NAME NUMBER TEXT`` each, then ``Z``
====================  ==============================================================

``E ID CODE SUM SIZE SUM SIZE``: the exit code, and the sums of standard output and standard error:
of cksum(1), or where that is missing (Debian's busybox) of md5sum(1).
"""

from __future__ import annotations

# No tabs and no exclamation marks: a line editor or bash's history would take them. Lines are short
# enough for any terminal's buffer.
SCRIPT = r"""n=$1; d=${0%/*}; W=$PWD; cd "$d" || exit
say() { printf '@%s %s ~ %s .\n' "$n" "$*" "$*"; }
enc() { if [ "$B" ]; then base64; else od -An -v -tx1; fi; }
dec() { if [ "$B" ]; then base64 -d; else printf "$(cat)"; fi; }
B=$(command -v base64); S=$(command -v setsid); Z=cksum
command -v cksum >/dev/null || Z=md5
sum() { if [ ! -s $1 ]; then echo 0 0
elif [ $Z = cksum ]; then cksum <$1
else set -- $(md5sum $1) $(wc -c <$1); echo $1 $3; fi; }
end() { read -r X <x; say E $X; }
A=$(command -v awk)
num() { if [ "$A" ]; then awk "{print \"@$n D $1 \" NR+$2-1 \" \" \$0 \" .\"}"
else j=$2; while read -r l; do printf '@%s D %s %s %s .\n' $n $1 $j "$l"
j=$((j+1)); done; fi; }
show() { enc <$1 | sed -n "$2,$3p" | num $1 $2; say Z $1; }
job() { : >o; : >e
head -c $2 <f >o & H=$!; head -c $2 <g >e & echo $H $! >z
$S sh -c 'echo $$ >p; cd "$0"; exec sh "$1/c"' "$W" "$d" <i >f 2>g
r=$?; wait; set -- $1 $r $(sum o) $(sum e); echo $* >y; mv y x; end
[ $4 -gt 0 ] && [ $4 -lt 3000 ] && show o 1 99
[ $6 -gt 0 ] && [ $6 -lt 3000 ] && show e 1 99
:; }
s=$(stty -g); trap 'stty $s; say Q' 0
rm -f x; : >b; q=0; stty raw -echo; say K ${B:-od} $Z
while read -r m v a b c e; do [ "$m" ] || break; [ "$m" = "$n" ] || continue
case $v in
u) head -c $a >>b; q=$((q+1)); say U $q;;
q) say U $q;;
f) if [ "$e" != "$L" ]; then L=$e; dec <b >w 2>/dev/null; : >b; q=0; set -- $(sum w)
F=0; if [ "$1 $2" = "$a $b" ]; then cat w >>$c; F=1; fi; fi; say F $e $F;;
t) : >$a; q=0; : >b; say T;;
r) if [ "$a" != "$id" ]; then id=$a; rm -f x p; job $a $b </dev/null & j=$!; fi;;
k) { kill -9 -$(cat p) || kill -9 $(cat p) && kill $(cat z); } 2>/dev/null;;
s) if [ -f x ]; then end; elif [ "$id" ]; then say R; else say N ${B:-od} $Z; fi;;
o) show $a $b $c;;
esac; done
"""
