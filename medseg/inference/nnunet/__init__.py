"""nnU-Net v2's trained models, read as they are: Isensee et al., "nnU-Net" (Nature Methods 2021)."""
