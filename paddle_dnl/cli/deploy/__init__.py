# SPDX-License-Identifier: Apache-2.0
"""Command lines of what runs exported models beside `infer`."""
