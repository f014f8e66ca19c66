# SPDX-License-Identifier: Apache-2.0
"""CPU working-memory techniques behind ordinary layers."""
