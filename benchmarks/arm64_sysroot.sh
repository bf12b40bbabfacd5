#!/bin/sh
# Make a folder from which `edge.py --sysroot FOLDER` runs an arm64 Python under emulation.
#
#     apt-get install --no-install-recommends qemu-user-static
#     sh benchmarks/arm64_sysroot.sh FOLDER
#
# Needs Debian 12, whose Python is 3.11, and uv. apt works on a state of its own in FOLDER: nothing is installed here.
set -eu
root=$(realpath -m "$1")
mkdir -p "$root/apt/lists/partial" "$root/apt/archives/partial"
touch "$root/apt/status"
apt_arm64() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$root/apt" \
    -o Dir::State::status="$root/apt/status" -o Dir::Cache="$root/apt" "$@"
}
apt_arm64 update
apt_arm64 install --yes --no-install-recommends --download-only python3.11-minimal libpython3.11-stdlib libstdc++6
for package in "$root"/apt/archives/*.deb; do dpkg-deb --extract "$package" "$root"; done
rm -r "$root/apt"
# ONNX Runtime reads it when it is imported, and dies of an x86 processor's.
mkdir -p "$root/proc"
printf '%s\n' 'processor : 0' 'Features : fp asimd crc32 atomics fphp asimdhp cpuid asimdrdm asimddp' \
  'CPU implementer : 0x41' 'CPU architecture: 8' 'CPU variant : 0x3' 'CPU part : 0xd0c' 'CPU revision : 1' \
  >"$root/proc/cpuinfo"
uv pip install --quiet --python-platform aarch64-manylinux_2_35 --python-version 3.11 --only-binary :all: \
  --constraint "$(dirname "$0")/../requirements.lock" --target "$root/site" \
  numpy onnxruntime opencv-python-headless pillow
