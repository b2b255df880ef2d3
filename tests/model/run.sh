#!/bin/bash
# Checks tests/model/queue.pml with spin: the engine's safety and liveness, and that broken engines are caught.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tests/model/run.sh [--quick] [--keep DIR] [--memory MIB]

Verifies the model of the job engine. TAP on standard output, one line per configuration, with the number of states; the
exit status is 0 only when every property holds and every broken variant is caught.

  --quick        the small configurations only (for each push; well under a minute)
  --keep DIR     work in DIR and leave the verifiers and trails there
  --memory MIB   most memory a verifier may take (default 5500)

Needs spin and gcc. In full it takes about ten minutes of one core and 2.5 GiB.
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
quick=false
keep=
memory=5500
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --quick) quick=true ;;
        --keep) keep=${2:?--keep needs a folder}; shift ;;
        --memory) memory=${2:?--memory needs a number}; shift ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
for program in spin gcc; do
    if ! command -v "$program" >/dev/null; then
        echo "Bail out! $program is not installed"
        exit 1
    fi
done
if [ -n "$keep" ]; then
    mkdir -p "$keep"
    work=$(cd "$keep" && pwd)
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi

n=0
bad=0

# verify KIND MODEL-SWITCHES: leaves the verifier's words in $out, and sets states, errors and complete.
# KIND: safety; live (any schedule); fair (weakly fair schedules); ends (any schedule, the weaker property)
verify() {
    local kind=$1 cc=() pan=(-m3000000)
    shift
    n=$((n + 1))
    local dir=$work/$n
    out=$dir/pan.out
    rm -rf "$dir"
    mkdir -p "$dir"
    case $kind in
        safety) cc=(-DSAFETY -DNOCLAIM) ;;
        live) pan+=(-a -N rest) ;;
        fair) cc=(-DNFAIR=3); pan+=(-a -f -N rest) ;;
        ends) pan+=(-a -N jobs_end) ;;
    esac
    if ! (cd "$dir" && spin "$@" -a "$here/queue.pml" >spin.out 2>&1 &&
        gcc "$level" -w -DNOREDUCE "-DMEMLIM=$memory" "${cc[@]}" -o pan pan.c >cc.out 2>&1); then
        cat "$dir"/*.out >&2
        echo "Bail out! the model does not compile"
        exit 1
    fi
    (cd "$dir" && nice -n "$nice" ./pan "${pan[@]}" -w"$table" >pan.out 2>&1) || true
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$out")
    errors=$(sed -n 's/.*errors: \([0-9]*\)$/\1/p' "$out")
    seconds=$(sed -n 's/^pan: elapsed time \([0-9.]*\) seconds/\1/p' "$out")
    complete=true
    if grep -Eq 'Search not completed|max search depth too small|out of memory|reached -DMEMLIM' "$out"; then
        complete=false
    fi
}

report() { # OK|not-ok WORDS
    if [ "$1" = ok ]; then
        echo "ok $n - $2"
    else
        echo "not ok $n - $2"
        sed 's/^/# /' "$out" | head -n 20
        bad=$((bad + 1))
    fi
}

holds() { # WORDS KIND MODEL-SWITCHES…
    local words=$1
    shift
    verify "$@"
    if [ "$errors" = 0 ] && $complete && [ "${states:-0}" != 0 ]; then
        report ok "$words: $states states, errors 0, ${seconds:-?} s"
    else
        report not-ok "$words: ${states:-?} states, errors ${errors:-?}, complete: $complete"
    fi
}

fails() { # WORDS EXPECTED KIND MODEL-SWITCHES…
    local words=$1 expected=$2
    shift 2
    verify "$@"
    if [ "${errors:-0}" != 0 ] && grep -q "$expected" "$out"; then
        report ok "$words is caught: $(sed -n 's/^pan:1: \(.*\)/\1/p' "$out" | head -n 1)"
    else
        report not-ok "$words is not caught (${states:-?} states, errors ${errors:-?})"
    fi
}

# The bare engine, with everything that can befall one job: deaths, hand-backs, failed steps, late heartbeats, a wipe, a
# cancellation, a retry.
everything=(-DJ=1 -DLATE=1 -DPUSHES=1 -DFAILURES=1)
table=22  # size of the hash table, 2^n
level=-O1 # of the compiler, which takes most of the time of a small run
nice=0
if $quick; then
    echo 1..8
    holds "safety - 2 workers, 1 job, 2 deaths, every fault" safety "${everything[@]}"
    holds "safety - 2 workers, 2 jobs, no deaths, 1 wipe" safety -DJ=2 -DCRASHES=0 -DCANCELS=0
    holds "safety - 2 workers, 1 job, 1 death, 1 claim lost before it began" safety -DJ=1 -DCRASHES=1 -DUNBEGUN=1
    holds "liveness - 2 workers, 1 job, 2 deaths, any schedule" live -DJ=1 -DBOUNDED
    holds "liveness - 2 workers, 1 job, 1 death, weak fairness" fair -DJ=1 -DPATIENT -DCRASHES=1 -DCANCELS=0
else
    echo 1..10
    nice=10 # it keeps a core busy for long
    table=24
    holds "safety - 2 workers, 1 job, 2 deaths, every fault, 1 retry" safety "${everything[@]}" -DRETRIES=1
    holds "safety - 2 workers, 1 job, 2 deaths, 2 sweepers at once" safety -DJ=1 -DS=2
    holds "liveness - 2 workers, 1 job, 2 deaths, every fault, any schedule" live "${everything[@]}" -DBOUNDED
    holds "liveness - 2 workers, 1 job, 1 death, 1 claim lost before it began, any schedule" live -DJ=1 -DBOUNDED -DCRASHES=1 -DUNBEGUN=1
    holds "liveness - 2 workers, 1 job, 2 deaths, weak fairness" fair -DJ=1 -DPATIENT
    table=26
    level=-O2
    holds "safety - 2 workers, 2 jobs, 2 deaths, 1 wipe, 1 cancellation" safety -DJ=2
    holds "liveness - 2 workers, 2 jobs, 2 deaths, 1 wipe, 1 cancellation, any schedule" live -DJ=2 -DBOUNDED
    table=22
fi
level=-O0
fails "a commit without the fence" "assertion violated" safety -DJ=1 -DNO_FENCE
fails "recovery that reads the lease index only" "acceptance cycle" ends -DJ=1 -DBOUNDED -DLEASE_ONLY_RECOVERY
fails "a sweep that does not make claims again of active rows" "acceptance cycle" ends -DJ=1 -DBOUNDED -DNO_RESTORE

echo "# $((n - bad)) of $n held"
[ "$bad" -eq 0 ]
