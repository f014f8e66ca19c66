"""paddle_dnl.data"""
