#!/usr/bin/env bash
# Unpacks a real ARM Debian and both TFLite runtimes into build/arm, for the tests
# that run edge/run_tflite.py under qemu. Needs root or the packages below, and the
# network; done again, it does nothing.
#
#   tests/runner/arm/setup.sh [FOLDER]
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
folder=${1:-$root/build/arm}
mkdir -p "$folder"

if ! command -v debootstrap >/dev/null || ! command -v qemu-aarch64-static >/dev/null
then
  apt-get update -q
  apt-get install -q -y --no-install-recommends debootstrap qemu-user-static
fi

# system NAME DEBIAN_ARCHITECTURE: Debian 12 with its Python 3.11, numpy and Pillow.
system() {
  local target=$folder/$1
  [ -e "$target/done" ] && return
  rm -rf "$target"
  # --foreign: nothing of it is run here, so that no root and no binfmt is needed.
  debootstrap --arch="$2" --foreign --variant=minbase \
    --include=python3,python3-numpy,python3-pil bookworm "$target"
  for package in "$target"/var/cache/apt/archives/*.deb; do
    dpkg -x "$package" "$target"
  done
  rm -f "$target"/var/cache/apt/archives/*.deb
  touch "$target/done"
}

# wheel NAME PLATFORM REQUIREMENT: one package into build/arm/NAME, no dependencies.
wheel() {
  local target=$folder/$1
  [ -e "$target/done" ] && return
  rm -rf "$target"
  python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps \
    --target "$target" --platform "$2" --python-version 3.11 --implementation cp \
    --only-binary=:all: "$3"
  touch "$target/done"
}

system aarch64 arm64
system armv7l armhf
wheel aarch64-tflite_runtime manylinux_2_34_aarch64 tflite-runtime==2.14.0
# 2.2 and 2.3 crash in qemu 7.2 when they make an interpreter.
wheel aarch64-ai_edge_litert manylinux_2_27_aarch64 "ai-edge-litert>=2.1,<2.2"
wheel armv7l-tflite_runtime manylinux_2_34_armv7l tflite-runtime==2.14.0
