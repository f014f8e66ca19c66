"""Every weight format that is read or written: safe pickle, safetensors, checksums, atomic files, downloads."""
