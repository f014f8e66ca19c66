# SPDX-License-Identifier: Apache-2.0
"""Preparation of datasets: conversion to label pictures and list files."""
