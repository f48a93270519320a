"""Our end of a serial shell on the target: a short script for any POSIX shell.

It lies in a directory of its own, beside the pipes ``f`` and ``g``. It is typed into the login
shell once, and started there for each command. While it runs, the terminal is raw, and it speaks in
frames (:mod:`pytest_hil.shell.serial_frames`): what a command says goes into files first. A little
of it comes in the frame that says the command's end, more as numbered lines of base64 that can be
asked for again. Each program that is started here costs an emulated or a small board ten
milliseconds, so the shell's own words do what they can.

A request is a line ``NONCE LENGTH REQUEST ~ REQUEST``. An empty line ends the script, so that
whoever finds a console in which it was left behind gets the login shell back with the return key;
others are noise.

====================  ==============================================================
``x ID MAX TEXT``     run TEXT (escaped for printf) with no input; ``E`` at its end
``r ID MAX``          run the file ``c``, its input the file ``i``; ``E`` at its end
``s``                 where it stands: ``R`` while it runs, ``E …`` after it, else ``N``
``l``                 the same, with sums in place of what a short stream says
``k``                 kill it and all its children; asked again: whoever has its pipes
``o NAME FROM TO``    lines of a stream, ``D NAME NUMBER TEXT`` each, then ``Z``
``t NAME``            empty the file NAME; answer ``T NAME``
``u LENGTH``          that many characters of base64 follow; answer ``U COUNT``
``q``                 how many of those it has had: ``U COUNT``
``f SUM SIZE NAME N`` decode what was uploaded and append it to the file NAME if its
                      sum is right: ``F N 1``, else ``F N 0``; once for each N
====================  ==============================================================

``E ID CODE -OUT -ERR``: the exit code, and both streams in base64 (hex, where that is missing), or
``E ID CODE SUM SIZE SUM SIZE``: their sums, of cksum(1), or where that is missing (Debian's
busybox) of md5sum(1). Streams below 3000 bytes then come by themselves.
"""

from __future__ import annotations

# No tabs and no exclamation marks: a line editor or bash's history would take them. Lines are short
# enough for any terminal's buffer.
SCRIPT = r"""n=$1; d=${0%/*}; W=$PWD; set -f; cd "$d" || exit
say() { y=$*; printf '@%s %s %s ~ %s .\n' "$n" ${#y} "$y" "$y"; }
has() { command -v $1 >/dev/null; }
B=od; has base64 && B=base64; Z=md5; has cksum && Z=cksum
S=; has setsid && S=setsid; A=; has awk && A=1
enc() { if [ $B = od ]; then od -An -v -tx1; else base64; fi; }
dec() { if [ $B = od ]; then printf "$(cat)"; else base64 -d; fi; }
sum() { if [ ! -s $1 ]; then echo 0 0
elif [ $Z = cksum ]; then cksum <$1
else set -- $(md5sum $1) $(wc -c <$1); echo $1 $3; fi; }
num() { if [ "$A" ]; then awk "{print \"@$n D $1 \" NR+$2-1 \" \" \$0 \" .\"}"
else j=$2; while read -r l; do printf '@%s D %s %s %s .\n' $n $1 $j "$l"
j=$((j+1)); done; fi; }
show() { enc <$1 | sed -n "$2,$3p" | num $1 $2; say Z $1; }
some() { [ $2 -gt 0 ] && [ $2 -lt 3000 ] && show $1 1 99; }
word() { w=; [ ! -s $1 ] || for l in $(enc <$1); do w=$w$l; done; }
long() { echo $1 $2 $(sum o) $(sum e) . >x; }
short() { if [ -s o ] || [ -s e ]; then set -- $1 $2 $(wc -c o e)
[ $3 -gt 400 ] || [ $5 -gt 400 ] && return 1; fi
word o; set -- $1 $2 -$w; word e; echo $* -$w . >x; }
tell() { read -r X <x; say E ${X% .}; set -- $X
[ $# -lt 7 ] || { some o $4; some e $6; }; }
job() { : >o; : >e
head -c $2 <f >o & H=$!; head -c $2 <g >e & echo $H $! >z
(cd "$W"; exec $S sh "$d/c") <i >f 2>g & P=$!; echo $P >p
wait $P; r=$?; wait; short $1 $r || long $1 $r; tell; }
s=$(stty -g); trap 'stty $s; say Q' 0
: >x; : >b; q=0; stty raw -echo; say K $B $Z
while read -r m z r; do [ "$m" ] || break; [ "$m" = "$n" ] || continue
w=${r%%" ~ "*}; [ "${#w} $w ~ $w" = "$z $r" ] || continue
set -- $w
case $1 in
u) head -c $2 >>b; q=$((q+1)); say U $q;;
q) say U $q;;
f) if [ $5 != "$L" ]; then L=$5; c=$4; w="$2 $3"; dec <b >y 2>/dev/null; : >b; q=0
F=0; set -- $(sum y); if [ "$1 $2" = "$w" ]; then cat y >>$c; F=1; fi; fi; say F $L $F;;
t) : >$2; q=0; : >b; say T $2;;
x|r) if [ $2 != "$I" ]; then I=$2; : >p; : >z; [ $1 = r ] || { printf "$4" >c; : >i; }
job $2 $3 </dev/null 2>/dev/null & fi;;
k) read -r P <p; read -r H <z; { kill -9 -$P || kill -9 $P || kill $H; } 2>/dev/null;;
s|l) read -r X <x; case $X in
*" .") v=$1; set -- $X; [ $v = s ] || long $1 $2; tell;;
*) if [ "$I" ]; then say R; else say N $B $Z; fi;; esac;;
o) show $2 $3 $4;;
esac; done
"""
