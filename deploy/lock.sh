#!/usr/bin/env bash
# Resolve pyproject.toml anew in throw-away environments and write down what came out. Usage: deploy/lock.sh PYTHON
set -euo pipefail
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/main"
"$work/main/bin/pip" install --quiet --disable-pip-version-check --editable '.[train,features,local,load,dev,spark]'
# a local build tag and a path that a package came from are this machine's affair
"$work/main/bin/pip" list --format=freeze --exclude-editable | grep -vE '^(pip|setuptools)==' | sed 's/+cpu$//' > constraints.txt

"$python" -m venv "$work/triton"
"$work/triton/bin/pip" install --quiet --disable-pip-version-check --no-deps nvidia-pytriton==0.7.0
"$work/triton/bin/pip" install --quiet --disable-pip-version-check 'numpy<2' onnxruntime
"$work/triton/bin/pip" freeze > constraints-triton.txt
