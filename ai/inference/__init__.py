"""Pieces that models are made of: grids, morphology, anatomy on coarse grids, fine boundaries."""
