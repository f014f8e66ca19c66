# SPDX-License-Identifier: Apache-2.0
"""What a trained model attends to: its weights for single queries, and how they agree with the labels."""
