"""What a trained network gives: metrics, statistics of BN, ensembles and views, confusion."""
