"""paddle_dnl.models.backbones"""
