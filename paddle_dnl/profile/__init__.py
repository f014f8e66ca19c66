# SPDX-License-Identifier: Apache-2.0
"""MACs, memory plan, measuring."""
