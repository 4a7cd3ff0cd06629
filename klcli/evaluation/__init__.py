"""Metrics of a trained network, statistics of BN, ensembles and views, confusion."""
