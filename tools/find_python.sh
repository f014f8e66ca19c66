#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints the first Python from 3.10 to 3.12 on the path, or nothing.
for name in python3 python3.11 python3.12 python3.10 python; do
    if command -v "$name" > /dev/null 2>&1 &&
        "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2> /dev/null; then
        echo "$name"
        exit 0
    fi
done
