#!/bin/sh
# Installs what requirements.lock lists, and no file with another hash: install.sh cpu|cuda
set -eu
lock=$(dirname "$0")/requirements.lock

# The lock's entries whose names match a pattern, or with `others` all the rest.
entries() {
    awk -v names="^($1)==" -v others="${2:-}" '
        /^[a-z0-9]/ { matched = $0 ~ names; print_it = others ? !matched : matched }
        /^[a-z0-9 ]/ && print_it
    ' "$lock"
}

install() {
    pip install --no-deps --no-build-isolation --require-hashes --requirement /dev/stdin "$@"
}

torch='torch|torchvision'
cuda='triton|(nvidia|cuda)-[a-z0-9-]*'

case $1 in
cpu)
    # The index of PyPI has PyTorch for CUDA only. These are its builds for CPUs, of the same
    # versions and several gigabytes smaller, from an index whose hashes the lock does not have.
    # shellcheck disable=SC2046
    pip install --no-deps --index-url https://download.pytorch.org/whl/cpu \
        $(entries "$torch" | awk '/^torch/ { print $1 }')
    entries "$torch|$cuda" others | install
    ;;
cuda)
    install <"$lock"
    ;;
*)
    echo "install.sh: the variant is cpu or cuda, not $1" >&2
    exit 1
    ;;
esac
