"""paddle_dnl.visualize"""
