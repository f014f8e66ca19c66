"""paddle_dnl.cli"""
