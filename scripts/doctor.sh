#!/usr/bin/env bash
# Says what a build of Menes needs and is missing here, with the command that installs it.
# Exits 0 when nothing is missing. With --packages it prints only the Debian packages to install.
set -u

missing_packages=()
problems=()

have() { command -v "$1" >/dev/null 2>&1; }

have cc || missing_packages+=(build-essential)
have c++ || missing_packages+=(build-essential)
have make || missing_packages+=(make)
have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    local place
    for place in /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /opt/homebrew/opt/llvm/lib; do
        compgen -G "$place/libclang*.so*" >/dev/null && return 0
        compgen -G "$place/libclang.dylib" >/dev/null && return 0
    done
    return 1
}
have_libclang || missing_packages+=(libclang-dev)
have cargo || problems+=("Rust is missing: install rustup from https://rustup.rs, then run this again")

if [ "${1:-}" = --packages ]; then
    printf '%s\n' "${missing_packages[@]}" | sort -u
    exit 0
fi

for problem in "${problems[@]}"; do echo "$problem" >&2; done
if [ ${#missing_packages[@]} -gt 0 ]; then
    packages=$(printf '%s\n' "${missing_packages[@]}" | sort -u | tr '\n' ' ')
    if have apt-get; then
        echo "missing packages, install them with: sudo apt-get install -y $packages" >&2
    elif have dnf; then
        echo "missing packages, install them with: sudo dnf install -y gcc-c++ make clang-devel" >&2
    elif have brew; then
        echo "missing packages, install them with: xcode-select --install && brew install llvm" >&2
    else
        echo "missing: $packages" >&2
    fi
fi
[ ${#problems[@]} -eq 0 ] && [ ${#missing_packages[@]} -eq 0 ]
