"""Preparation of datasets: conversion to label pictures and list files."""
