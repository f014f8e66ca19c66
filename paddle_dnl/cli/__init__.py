# SPDX-License-Identifier: Apache-2.0
"""paddle_dnl.cli"""
