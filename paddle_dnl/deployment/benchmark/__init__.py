# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of an exported folder in each backend, each measured in its own process."""
