"""paddle_dnl.models"""
