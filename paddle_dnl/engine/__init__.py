"""paddle_dnl.engine"""
