"""Searching for hyperparameters: `sapwood tune` and `sapwood.tune`. See docs/tuning.md.

A search file says what is tried (search.py); networks come from a builder or a template (networks.py); the chosen share of the data is
laid out once (samples.py) for workers that train many trials each (worker.py, crews.py); a journal file remembers all (journal.py),
and whoever has it open takes part (conduct.py). In the end there are a table, a trained network and a page (outcome.py, pages.py).
"""
