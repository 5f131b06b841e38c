"""Every odd or damaged input is read right, or refused with file and cause, in little memory."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from trust import corpus, corpus_dicom, corpus_masks, corpus_pictures

HERE = Path(__file__).parent
FAMILIES = {
    family.__name__: family
    for module in (corpus, corpus_pictures, corpus_dicom, corpus_masks)
    for family in module.FAMILIES
}
LONGEST = 200  # seconds for a family: a guard against what never ends, not a measure of speed


@pytest.mark.parametrize("family", FAMILIES)
def test_each_input_is_read_right_or_refused_with_its_cause(tmp_path, family, record_property):
    samples = list(FAMILIES[family](tmp_path / "files"))
    listed = [(str(sample.path), sample.kind, str(tmp_path / f"{n}.npy")) for n, sample in enumerate(samples)]
    answer = subprocess.run(
        [sys.executable, "-X", "utf8", str(HERE / "read_all.py")],
        input=json.dumps(listed),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    outcomes = json.loads(answer.stdout.splitlines()[-1])
    assert len(outcomes) == len(samples)
    problems = [problem_of(*each) for each in zip(samples, outcomes, (result for *_, result in listed), strict=True)]
    counts = Counter(
        "failed" if problem else "clear error" if outcome.startswith("refused") else "right"
        for problem, outcome in zip(problems, outcomes, strict=True)
    )
    record_property("family", family.replace("_", " "))
    record_property("subject", FAMILIES[family].__doc__.partition("\n")[0].removesuffix("."))
    record_property("tried", len(samples))
    for count in ("right", "clear error", "failed"):
        record_property(count, counts[count])
    wrong = [f"{sample.name}: {problem}" for sample, problem in zip(samples, problems, strict=True) if problem]
    assert not wrong, "\n".join(wrong)


def problem_of(sample, outcome, result):
    """Say what is wrong with the outcome of a sample, "" if nothing is."""
    if outcome.startswith("crashed") or "not enough memory" in outcome:
        return outcome
    refused = outcome.startswith("refused")
    if isinstance(sample.expected, str):
        if not refused:
            return "" if sample.expected == "either" else "it was read"
        named = sample.path.name[:40] in outcome or str(sample.path) in outcome
        if sample.kind == "mask":  # may be known by the name of its case, or be told together with all others
            named = named or f"case(s): {sample.path.stem}" in outcome or "the masks hold" in outcome
        return "" if named and sample.cause in outcome else f"file or cause is not named: {outcome}"
    if refused:
        return outcome
    voxels = np.load(result)
    if voxels.shape != sample.expected.shape:
        return f"of shape {voxels.shape} instead of {sample.expected.shape}"
    apart = np.abs(voxels.astype(np.float64) - sample.expected)
    return "" if apart.max() <= sample.tolerance else f"voxels are up to {apart.max():g} apart"


def test_the_corpus_is_the_same_each_time(tmp_path):
    for family in ("nifti_forms", "cuts"):
        first, second = ([*FAMILIES[family](tmp_path / name)] for name in ("a", "b"))
        assert [sample.path.read_bytes() for sample in first] == [sample.path.read_bytes() for sample in second]
