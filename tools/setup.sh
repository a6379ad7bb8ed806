#!/usr/bin/env bash
# Makes the environment: tools/setup.sh .venv. Chooses the CPU build of torch where there is no GPU, because the
# default build brings gigabytes of CUDA libraries that such a machine cannot use.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}

"$python" - <<'PY' || { echo "carousel needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
import sys
sys.exit(sys.version_info < (3, 11))
PY
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

want=${TORCH:-}
if [ -z "$want" ]; then
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then want=cuda; else want=cpu; fi
fi

has_torch() { "$venv/bin/python" -c 'import torch; v = tuple(map(int, torch.__version__.split("+")[0].split(".")[:2])); exit(not (2, 9) <= v < (3,))' 2>/dev/null; }
if ! has_torch; then
    echo "Installing torch ($want build) ..."
    if [ "$want" = cuda ]; then
        pip install -q "torch>=2.9,<3"
    elif ! pip install -q "torch==2.13.0+cpu" 2>/dev/null; then
        # This index has no local CPU build; uv knows where each backend's builds are kept.
        pip install -q uv && VIRTUAL_ENV="$venv" "$venv/bin/uv" pip install -q --torch-backend=cpu "torch>=2.9,<3" || {
            echo "No CPU build of torch could be installed. Install torch 2.9 or newer into $venv by hand, then run make again." >&2
            exit 1
        }
    fi
fi
echo "Installing carousel and its tools ..."
pip install -q -e ".[dev]"
if [ "$want" = cpu ] && pip list 2>/dev/null | grep -qi '^nvidia-'; then
    echo "CUDA libraries were installed on a machine without a GPU: a dependency replaced the CPU build of torch." >&2
    exit 1
fi
