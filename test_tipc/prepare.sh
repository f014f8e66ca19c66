#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the data that the TIPC steps of CONFIG need in MODE: Mini-Cityscapes, generated, nothing is downloaded.
#   bash test_tipc/prepare.sh CONFIG MODE
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: bash test_tipc/prepare.sh CONFIG MODE" >&2
    exit 2
fi
config=$1
mode=$2
[ -f "$config" ] || { echo "Error: $config: no such file" >&2; exit 2; }
case "$mode" in
    lite_train_lite_infer|lite_train_whole_infer|whole_infer) train=16; val=4 ;;
    whole_train_whole_infer|benchmark_train) train=64; val=16 ;;
    *) echo "Error: unknown mode $mode" >&2; exit 2 ;;
esac
python=$(sed -n 's/^python:\([^:]*\).*/\1/p' "$config" | head -n 1)
data=test_tipc/data/mini_cityscapes
# Made anew each time: modes differ in the number of pictures, and the folder is nobody else's.
rm -rf "$data"
$python -m paddle_dnl.cli.data.mini_cityscapes --out "$data" --train "$train" --val "$val" --size 512x256 --seed 0
$python tools/data/convert_cityscapes.py --cityscapes_path "$data" --num_workers 2
$python tools/data/create_dataset_list.py "$data" --type cityscapes --separator ","
if [ "$mode" = whole_infer ]; then
    # The weights that line 37 names come from a short training, since none can be downloaded.
    exec $python test_tipc/make_weights.py "$config"
fi
