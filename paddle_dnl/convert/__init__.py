"""paddle_dnl.convert"""
