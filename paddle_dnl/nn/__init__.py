"""paddle_dnl.nn"""
