# SPDX-License-Identifier: Apache-2.0
"""What a run stores to go on from, and the folder that holds it."""
