# SPDX-License-Identifier: MIT
# What the `run` of a model needs that is about safety alone: see README.md. It sets $model first, and ends with verdict.
# shellcheck shell=bash
# shellcheck disable=SC2154 # $model is set by who reads this

for tool in spin gcc; do
        command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed (tools/setup --dev)" && exit 77; }
done
scratch=$(mktemp -d "${TMPDIR:-/tmp}/lessor-model.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
bad=0

say() {
        printf '%-7s %-36s %s\n' "$@"
        [[ $1 == ok ]] || bad=1
}

# explore OPTIMISATION FLAG...: the verifier's report into ./report. -E: where nothing goes on any more, the model's own
# monitor says whether that is a fault.
explore() {
        local optimise=$1
        shift
        rm -f pan* ./*.trail
        : >report
        if ! { spin -a "$@" "$model" && gcc -w "$optimise" -DSAFETY -DNOCLAIM -o pan pan.c; } >spin.log 2>&1; then
                cat spin.log >&2
                return 1
        fi
        ./pan -E -m100000 -w23 >report 2>&1 || true # its exit status says nothing about the model
}

# Everything was looked at, and nothing found.
is_proved() {
        grep -q 'errors: 0$' report && ! grep -qE 'too small|not completed|out of memory|resource' report
}

# Lines of the processes that no run ever came to: a model that does nothing is right about everything.
unreached() {
        awk '/state [0-9]+,/ && !/"-end-"/' report
}

# holds NAME DESCRIPTION
holds() {
        explore -O2 || { say FAILED "$1" "spin does not accept the model" && return; }
        if ! is_proved; then
                say FAILED "$1" "$(grep -m1 -E '^pan:[0-9]+:' report || echo 'no result')"
        elif [[ -n $(unreached) ]]; then
                say FAILED "$1" "part of the model is never reached: $(unreached | head -n 1)"
        else
                say ok "$1" "$2 ($(awk '/states, stored/ { print $1 }' report) states)"
        fi
}

# breaks MACRO FAULT: with the macro, the verifier must find just that fault
breaks() {
        local macro=$1 fault=$2 found
        explore -O0 "-D$macro" || { say FAILED "$macro" "spin does not accept the model" && return; }
        found=$(grep -m1 -E '^pan:[0-9]+: ' report || true)
        found=$(sed -E 's/^pan:[0-9]+: //; s/ \(at depth.*//; s/^assertion violated *!\((.*)\)$/\1/' <<<"$found")
        case $found in
        "$fault") say ok "$macro" "fault found, as it must be: ${found//_/ }" ;;
        '') say FAILED "$macro" "no fault found: the model does not see that this step is needed" ;;
        *) say FAILED "$macro" "another fault than expected ($fault): $found" ;;
        esac
}

verdict() { exit "$bad"; }
