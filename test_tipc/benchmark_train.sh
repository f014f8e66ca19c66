#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measures how many pictures per second the training command of CONFIG takes; 1 when a run failed.
#   bash test_tipc/prepare.sh CONFIG benchmark_train && bash test_tipc/benchmark_train.sh CONFIG benchmark_train
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "$0")/benchmark_train.py" "$@"
