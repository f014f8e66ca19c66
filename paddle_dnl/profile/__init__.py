# SPDX-License-Identifier: Apache-2.0
"""MACs, memory estimates and measurements."""
