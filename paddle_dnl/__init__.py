"""paddle_dnl: attention-based semantic segmentation on PaddlePaddle (DNLNet, DMNet, DGMN2)."""

import zlib  # noqa: F401  must stay the first import: libpaddle 2.6.2 embeds an old zlib that would else shadow the system's

__version__ = "0.1.0"
