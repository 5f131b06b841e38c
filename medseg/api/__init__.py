"""medseg from Python: the names that ``import medseg`` offers, each imported where it is first used."""
