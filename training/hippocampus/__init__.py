"""Anterior and posterior hippocampus on T1-weighted MR: data, training, cross-validation, packing.

``make train-hippocampus DATA=…`` runs all of it. Every random choice comes from a fixed seed, so the same
machine, torch and thread count give the same weights; others give weights that differ in the last digits.

The method is nnU-Net's in small: residual 3D U-Net with instance normalisation, cross entropy and Dice
(Isensee et al., Nat Methods 2021;18:203), AdamW with one cycle of the learning rate (Smith and Topin 2019),
and an exponential moving average of the weights.
"""
