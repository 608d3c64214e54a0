"""MONAI bundles: what their configuration says, as a recipe of ours or as MONAI's own transforms.

``parse`` reads the configuration and builds the network, ``translate`` makes a recipe of transforms that we
know, ``compatible`` runs all others as they are, ``draft`` proposes a card for a bundle from elsewhere.
"""
