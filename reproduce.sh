#!/usr/bin/env bash
# Reproduce the paper's tables and figures, or test the repository. Two commands do all the set-up:
#
#   ./reproduce.sh [smoke|cpu|laptop|colab|paper|published] [--only 03] [--seeds 3] [--dry-run] [--fresh]
#   ./reproduce.sh test [arguments for pytest]
#
# Either makes its own environment in .venv on first use: with conda, mamba or micromamba where one is present, otherwise
# with python3 -m venv and pip; both take their versions from environment.yml.
#
#   CLINICAL_R1_PYTHON    use this interpreter as it is; nothing is installed
#   CLINICAL_R1_PIP_ARGS  more arguments for pip, such as an index that serves CPU builds of PyTorch
#
# Relative paths (--out, --with, --to, CLINICAL_R1_DATA, CLINICAL_R1_MODELS, CLINICAL_R1_PYTHON) are
# taken from the folder it is called in.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh reproduce.sh`
set -euo pipefail
unset CDPATH

script=${BASH_SOURCE[0]}
while [ -L "$script" ]; do # called through a link
    link=$(readlink "$script")
    case $link in /*) script=$link ;; *) script=$(dirname "$script")/$link ;; esac
done
root=$(cd -P -- "$(dirname -- "$script")" && pwd)
env_dir=$root/.venv
stamp_file=$root/.venv.stamp # beside the environment: an unfinished or foreign .venv has no stamp that fits
lock=$root/.venv.lock        # a link to the number of the process that makes the environment

say() { printf 'reproduce: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

child=""
attended() { # a command that Ctrl-C does not reach; `interrupted` ends it, with its children and without their tracebacks
    local status=0
    set -m
    "$@" < /dev/null >&2 &
    child=$!
    set +m
    wait "$child" || status=$?
    child=""
    return "$status"
}

interrupted() {
    trap '' INT TERM HUP
    if [ -n "$child" ]; then
        kill -TERM -- "-$child" 2> /dev/null || true
        wait "$child" 2> /dev/null || true
    fi
    say "interrupted; run the same command to go on where it stopped."
    exit "$1"
}
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'interrupted 129' HUP

# A GPU profile on a GPU machine also takes the GPU packages.
extras=""
if command -v nvidia-smi > /dev/null 2>&1; then
    case " $* " in
        *" colab "*) extras="[gpu]" ;;
        *" paper "*) extras="[gpu,vllm]" ;;
    esac
fi

find_python() { # the first interpreter of a supported version that can make environments
    local name
    for name in python3.11 python3.12 python3.13 python3; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' > /dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    return 1
}

find_conda() {
    local name
    for name in micromamba mamba conda; do
        if command -v "$name" > /dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    return 1
}

conda_create() {
    say "making .venv with $1 from environment.yml"
    local create=("$1" env create)
    [ "$1" = micromamba ] && create=(micromamba create)
    CONDA_ALWAYS_YES=true MAMBA_ALWAYS_YES=true attended "${create[@]}" -p "$env_dir" -f "$root/environment.yml"
}

pip_install() { # the pins of environment.yml, and this package (with "" or "[extras]") as it lies here
    local quiet=-qq
    [ -t 2 ] && quiet="" # someone is watching: show pip's progress
    # shellcheck disable=SC2086  # the user's pip arguments are several words
    attended "$env_dir/bin/python" -m pip install $quiet ${CLINICAL_R1_PIP_ARGS:-} \
        -r "$env_dir/requirements.txt" -e "$root$1" ||
        fail "pip could not install the packages (its message is above); run the same command to try again."
}

lock_environment() { # two commands at once must not make it under each other
    local other
    until ln -s $$ "$lock" 2> /dev/null; do
        other=$(readlink "$lock") || fail "cannot write in $root; clone the repository to a folder that is yours."
        kill -0 "$other" 2> /dev/null && fail "process $other is making .venv; wait for it, then run this again."
        rm -f "$lock"
    done
    trap 'rm -f "$lock"' EXIT
}

make_environment() {
    local conda python
    if [ -e "$env_dir" ] && [ ! -e "$stamp_file" ]; then
        fail ".venv was not made by this script; move it away, or set CLINICAL_R1_PYTHON=.venv/bin/python to use it."
    fi
    rm -rf "$env_dir"
    echo unfinished > "$stamp_file"
    if ! { conda=$(find_conda) && conda_create "$conda"; }; then
        python=$(find_python) || fail "found no Python 3.11, 3.12 or 3.13 with the venv module; install one, or conda."
        rm -rf "$env_dir"
        say "making .venv with $python (first use; two to five minutes, 2 GB)"
        attended "$python" -m venv "$env_dir" || fail "$python could not make .venv (its message is above)."
    fi
    awk '/^ *- pip:/ { inside = 1; next } inside && /^ *- / { sub(/^ *- */, ""); sub(/ *#.*/, ""); print }' \
        "$root/environment.yml" > "$env_dir/requirements.txt"
    pip_install ""
    echo "$wanted" > "$stamp_file"
    say "the environment is ready"
}

wanted="$(cksum < "$root/environment.yml") $root"
pipeline() { # this process becomes the command line; -P: nothing is imported from the folder it is called in
    trap '' INT # for the moment until Python listens and answers with a sentence
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$1" -P -m clinical_r1.pipeline "${@:2}"
}

ready() { [ -x "$env_dir/bin/python" ] && [ "$(cat "$stamp_file" 2> /dev/null)" = "$wanted" ]; }

if [ -n "${CLINICAL_R1_PYTHON:-}" ]; then
    python=$(command -v "$CLINICAL_R1_PYTHON") ||
        fail "CLINICAL_R1_PYTHON=$CLINICAL_R1_PYTHON is no program; unset it or name a Python."
    case $python in */*) python=$(cd -- "$(dirname -- "$python")" && pwd)/$(basename -- "$python") ;; esac
    [ "$("$python" -c 'import sys; print(sys.version_info >= (3, 11))' 2> /dev/null)" = True ] ||
        fail "CLINICAL_R1_PYTHON=$CLINICAL_R1_PYTHON is no Python of version 3.11 or later; name another or unset it."
else
    python=$env_dir/bin/python
    if ! ready; then
        # A wrong argument, --help and --dry-run need no environment: the command line runs on the standard library.
        if [ "${1:-}" != test ] && plain=$(find_python); then
            case " $* " in *" --dry-run "* | *" --help "* | *" -h "*) pipeline "$plain" "$@" ;; esac
            (pipeline "$plain" "$@" --dry-run) > /dev/null
        fi
        lock_environment
        ready || make_environment
        rm -f "$lock"
    fi
    if [ -n "$extras" ] && [ ! -e "$env_dir/has$extras" ]; then
        say "adding the GPU packages $extras"
        pip_install "$extras"
        touch "$env_dir/has$extras"
    fi
fi

case ${CLINICAL_R1_DATA:-/} in /*) ;; *) export CLINICAL_R1_DATA=$PWD/$CLINICAL_R1_DATA ;; esac
case ${CLINICAL_R1_MODELS:-/} in /*) ;; *) export CLINICAL_R1_MODELS=$PWD/$CLINICAL_R1_MODELS ;; esac
[ "${1:-}" = test ] || pipeline "$python" "$@"

shift
cd "$root"
"$python" -m ruff check .
"$python" -m ruff format --check .
# A process a core, at most four; what belongs to one file stays in one process. Later arguments win: -n 0 for a debugger.
exec "$python" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
