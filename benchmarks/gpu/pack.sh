#!/usr/bin/env bash
# Packs into .parts/ what a GPU machine with Python 3.12, torch and triton, but without a network, lacks: the wheels that
# constraints.txt names, as small as they get. Needs a package index; takes a few minutes on two cores.
#
#     bash benchmarks/gpu/pack.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip install --quiet --target "$work/tools" zstandard
# These are the packages, and of what they declare what they import. matplotlib is not among them: charts are drawn later.
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --constraint constraints.txt --dest "$work" \
    nvidia-dali-cuda130 av pydantic pydantic_core annotated-types typing-inspection typing-extensions astunparse gast \
    optree rapidfuzz tomli-w
rm -rf .parts
PYTHONPATH=$work/tools nice "$python" -m benchmarks.gpu.slim_wheels pack "$work"/*.whl --out .parts --limit 60 --jobs 2
du -sh --apparent-size .parts
