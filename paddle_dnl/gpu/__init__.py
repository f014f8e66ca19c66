# SPDX-License-Identifier: Apache-2.0
"""Facts about GPUs that need none, and the check to run on a machine that has one."""
