#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the TIPC chain of CONFIG in MODE; ends with status 1 when any step failed.
#   bash test_tipc/test_train_inference_python.sh CONFIG MODE
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "$0")/run_tipc.py" "$@"
