# Reads its boot line and does what the address in it says, in POSIX words only.
IFS= read -r boot || exit 1
ops=${boot#*https://script.invalid/}
ops=${ops%%\"*}
tick='trap "" TERM HUP; i=0
while [ $i -lt 600 ]; do echo tick >>"$1"; i=$((i + 1)); sleep 0.1 2>/dev/null || sleep 1; done'
trap 'exit 0' TERM
while [ -n "$ops" ]; do
    op=${ops%%;*}
    case $ops in *\;*) ops=${ops#*;} ;; *) ops= ;; esac
    rest=${op#*,}
    one=${rest%%,*}
    two=${rest#*,}
    case ${op%%,*} in
    boot) printf '%s\n' "$boot" ;;
    log) printf '%s\n' "$one" ;;
    flood)
        i=0
        while [ $i -lt "$one" ]; do
            i=$((i + 1))
            echo "line $i"
        done
        ;;
    write) mkdir -p "${one%/*}" && printf '%s' "$two" >"$one" ;;
    read)
        if [ -e "$one" ]; then echo "read $one $(cat "$one")"; else echo "read $one absent"; fi
        ;;
    count)
        n=0
        if [ -e "$one" ]; then n=$(wc -l <"$one"); fi
        echo "count $one $((n))"
        ;;
    # A process of its own session where the system can make one, adopted by whoever adopts orphans.
    linger) ($(command -v setsid) sh -c "$tick" tick "$one" </dev/null >/dev/null 2>&1 &) ;;
    on-stop) trap "printf '%s' '$two' >'$one'; exit 0" TERM ;;
    ignore-stop) trap '' TERM ;;
    # Each turn doubles what it holds.
    hog) sh -c 'x=0123456789abcdef; while :; do x=$x$x; done' >/dev/null 2>&1 & wait $! ;;
    crowd) sh -c 'i=0; while [ $i -lt "$1" ]; do sleep 2 & i=$((i + 1)); done; wait' crowd "$one" >/dev/null 2>&1 & wait $! ;;
    uid) echo "uid $(id -u)" ;;
    # A shell runs its traps when a wait is interrupted, but not before a command in the foreground ends.
    pause) sleep "$one" & wait $! ;;
    exit) exit "$one" ;;
    wait) while :; do sleep 1 & wait $!; done ;;
    *) echo "unknown: $op" ;;
    esac
done
