"""medseg from Python: the names that ``import medseg`` offers, each imported where it is first used."""

import warnings

# tqdm's, in notebooks without ipywidgets, where a library that MONAI imports might show a bar
warnings.filterwarnings("ignore", "IProgress not found")
