#!/bin/sh
# Print the folder of a Debian bookworm root for ARM, building it when it is not in the cache:
#   tools/arm_root.sh arm64|armhf
# It holds what a board has before tflotilla: OpenSSH, python3, cron; on armhf also Debian's numpy and Pillow, which
# have no wheels there. The packages come from the Debian mirror that this machine's apt has, whichever that is.
# qemu-user is registered for the architecture when it isn't, as its package asks systemd to do.
# Exit status 77: this machine can't, and stderr says why. Needs root, mmdebstrap and qemu-user-static.
# A root is named by this recipe, is visible only whole, and nobody writes to it: boards lay their own files over it.
set -eu
# Where dpkg looks for ldconfig, and users' PATH often does not.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
arch=$1
suite=bookworm
# Raise it when what is done below makes other roots.
recipe=1
packages=openssh-server,openssh-client,python3,cron,libstdc++6
case $arch in
arm64) emulator=qemu-aarch64 native='aarch64' ;;
armhf) emulator=qemu-arm native='armv7l armv8l' packages=$packages,python3-numpy,python3-pil ;;
*)
    echo "arm_root: $arch: arm64 or armhf" >&2
    exit 2
    ;;
esac

cannot() {
    echo "arm_root: $1" >&2
    exit 77
}

[ "$(id -u)" = 0 ] || cannot "a root of another architecture and its namespaces need root"
registry=/proc/sys/fs/binfmt_misc
case " $native " in
*" $(uname -m) "*) ;;
*)
    [ -e $registry/register ] || mount -t binfmt_misc binfmt_misc $registry 2>/dev/null || [ -e $registry/register ] ||
        cannot "this kernel has no binfmt_misc, so nothing of another architecture runs here"
    if [ ! -e "$registry/$emulator" ]; then
        [ -r "/usr/lib/binfmt.d/$emulator.conf" ] ||
            cannot "qemu-user-static is not on this machine (Debian: apt install qemu-user-static)"
        # One write is one registration, and without the newline. Somebody else may have been quicker.
        grep -v '^#' "/usr/lib/binfmt.d/$emulator.conf" | tr -d '\n' 2>/dev/null >$registry/register ||
            [ -e "$registry/$emulator" ] || cannot "$emulator can't be registered in $registry"
    fi
    ;;
esac

cache=${TFLOTILLA_CACHE:-$HOME/.cache/tflotilla}/arm-roots
key=$(echo "$recipe $packages" | sha256sum | cut -c1-12)
root=$cache/$suite-$arch-$key
if [ -d "$root" ]; then
    echo "$root"
    exit
fi
command -v mmdebstrap >/dev/null || cannot "mmdebstrap is not on this machine (Debian: apt install mmdebstrap)"
mkdir -p "$cache"
# Whoever comes second waits, and finds it made.
exec 9>"$cache/$suite-$arch.lock"
flock 9
if [ -d "$root" ]; then
    echo "$root"
    exit
fi

mirrors() {
    # Only Debian's own, and only the archive itself: mirrors of its updates are not whole for every architecture.
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        while read -r origin uri release component; do
            case "$origin $component $release" in
            "Debian main "*-*) ;;
            "Debian main "*) echo "deb $uri $suite main" ;;
            esac
        done | sort -u
}
sources=$(mirrors)
if [ -z "$sources" ]; then
    apt-get update -q >&2 || true
    sources=$(mirrors)
fi
[ -n "$sources" ] || cannot "this machine's apt has no Debian mirror in its sources"

work=$cache/.new-$suite-$arch
# What an interrupted build left mounted in it would otherwise be removed with it.
awk -v under="$work" 'index($2, under "/") == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
rm -rf "$work"
eval "$(apt-config shell proxy Acquire::http::Proxy)"
set -- ${proxy:+"--aptopt=Acquire::http::Proxy \"$proxy\""}
# Keys made here are made at once, and none at all is left: each board gets one of its own.
echo "arm_root: building a Debian $suite root for $arch in $cache; under emulation that takes some minutes" >&2
echo "$sources" | mmdebstrap --quiet --mode=root --variant=minbase --architectures="$arch" --include="$packages" \
    --keyring=/usr/share/keyrings --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' "$@" \
    --essential-hook='mkdir -p "$1/etc/ssh" && ssh-keygen -q -A -f "$1"' \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' \
    --customize-hook='chroot "$1" useradd --create-home --shell /bin/bash pi' \
    "$suite" "$work" - >&2
rm -f "$work/etc/apt/sources.list" "$work/etc/resolv.conf" "$work"/etc/apt/apt.conf.d/99mmdebstrap
rm -rf "$work"/var/lib/apt/lists/* "$work"/var/cache/apt/*
mv "$work" "$root"
# Roots of older recipes are of no use to anybody.
for old in "$cache/$suite-$arch"-*; do
    [ "$old" = "$root" ] || rm -rf "$old"
done
echo "$root"
