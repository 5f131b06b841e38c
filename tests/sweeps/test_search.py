"""A search: what is drawn, what is pruned, and how several processes share the trials."""

import json

import pytest
import yaml

from medseg.config.schema import CONF
from medseg.config.settings import SearchSettings
from medseg.errors import MedsegError
from medseg.sweeps.process import Job
from medseg.sweeps.record import GIVEN_UP

optuna = pytest.importorskip("optuna", reason="optuna is not installed")
search = pytest.importorskip("medseg.sweeps.search")

SPACE = {
    "optimizer.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
    "loss": optuna.distributions.CategoricalDistribution(["dice_ce", "ce"]),
}
START = {"optimizer.lr": 3e-3, "loss": "dice_ce"}
TEN_EPOCHS = {"max_epochs": 10}


@pytest.fixture
def begin(tmp_path):
    """Begin a search in the test's folder, as one of its processes does."""

    begun = []

    def begin(space=SPACE, start=START, training_seed=0, limits=TEN_EPOCHS, **settings):
        def job_of(number, overrides):
            trainer = yaml.safe_load((CONF / "trainer" / "default.yaml").read_text())
            return Job(number, tmp_path / str(number), overrides, lambda: {"trainer": trainer | limits})

        settings = SearchSettings(**{"trials": 4, **settings})
        begun.append(search.Search(tmp_path, space, start, settings, training_seed, job_of))
        return begun[-1]

    yield begin
    for one in begun:
        die(one)


def end(one, job, status="done", score=None, reason="", seconds=1.0):
    """Let a job leave a result, and the search take it in."""
    job.folder.mkdir(exist_ok=True)
    result = {"status": status, "score": score, "reason": reason, "seconds": seconds}
    (job.folder / "result.json").write_text(json.dumps(result))
    one.ended(job)


def run(one, score_of):
    """Run a search one job after the other; return the overrides of each."""
    drawn = []
    while job := one.next():
        drawn.append(job.overrides)
        end(one, job, score=score_of(job.overrides))
    assert one.is_empty
    return drawn


def states(one):
    return [trial.state.name for trial in one.trials()]


def die(one):
    """What the operating system does to the locks of a process that is killed."""
    for file in one.claims.values():
        file.close()


def near(overrides):
    """Return a score that is the better the nearer the learning rate is to 1e-3."""
    rate = float(overrides[0].partition("=")[2])
    return 1 - abs(rate - 1e-3) * 100


def test_the_first_trial_is_the_config_and_the_same_seed_draws_the_same(begin, tmp_path):
    first = run(begin(), near)
    assert first[0] == ["optimizer.lr=0.003", "loss=dice_ce"]
    assert len(first) == 4
    for path in ("study.journal", "search.json"):
        (tmp_path / path).unlink()
    assert run(begin(), near) == first
    (tmp_path / "study.journal").unlink()
    other = run(begin(seed=1), near)
    assert other[0] == first[0]
    assert other[1:] != first[1:]


def test_no_combination_is_tried_twice_and_a_small_space_ends_the_search(begin):
    space = {
        "model.depth": optuna.distributions.IntDistribution(2, 4),
        "loss": optuna.distributions.CategoricalDistribution(["dice_ce", "ce"]),
    }
    drawn = run(begin(space, {"loss": "ce"}, trials=50), lambda overrides: 0.5)
    assert len(drawn) == 6
    assert len({tuple(each) for each in drawn}) == 6
    assert drawn[0][1] == "loss=ce"


def test_the_best_three_are_repeated_with_further_seeds(begin):
    one = begin(trials=5, repeats=2, training_seed=7)
    drawn = run(one, near)
    assert len(drawn) == 5 + 3 * 2
    best = sorted(drawn[:5], key=near)[:-4:-1]
    assert drawn[5:] == [[*overrides, f"seed={seed}"] for overrides in best for seed in (8, 9)]


def test_no_trial_begins_after_the_time_is_spent(begin):
    one = begin(time=150)
    for _ in range(2):
        end(one, one.next(), score=0.5, seconds=100.0)
    assert one.next() is None
    assert one.is_empty


def leave_epochs(job, scores):
    """Write what a training leaves of its first epochs, of a minute each."""
    job.folder.mkdir(exist_ok=True)
    rows = [f"{epoch},{epoch * 60},{score}\n" for epoch, score in enumerate(scores, start=1)]
    (job.folder / "metrics.csv").write_text("epoch,seconds,val_dice\n" + "".join(rows))


@pytest.mark.parametrize("limits", [TEN_EPOCHS, {"max_time": "00:00:10:00"}])
def test_a_trial_that_is_worse_than_others_at_the_same_share_is_hopeless(begin, limits):
    one = begin(limits=limits)
    jobs = [one.next() for _ in range(3)]
    assert not one.is_hopeless(jobs[0])  # it has not begun
    leave_epochs(jobs[0], [0.1, 0.1])
    leave_epochs(jobs[1], [0.1, 0.5])
    leave_epochs(jobs[2], [0.1])
    assert not any(one.is_hopeless(job) for job in jobs)  # the first, alone at 15 % and too early
    leave_epochs(jobs[2], ["", 0.4])
    assert one.is_hopeless(jobs[2])
    end(one, jobs[2], GIVEN_UP)
    assert states(one) == ["RUNNING", "RUNNING", "PRUNED"]
    assert one.trials()[1].intermediate_values == {10: 0.1, 20: 0.5}


@pytest.mark.parametrize("settings", [{"pruning": False}, {"trials": 1, "repeats": 1}])
def test_without_pruning_and_in_repeats_nothing_is_hopeless(begin, settings):
    one = begin(**settings)
    jobs = [one.next()]
    leave_epochs(jobs[0], [0.9] * 9)
    one.is_hopeless(jobs[0])
    end(one, jobs[0], score=0.9)
    jobs.append(one.next())
    leave_epochs(jobs[1], [0.1] * 9)
    assert not one.is_hopeless(jobs[1])


def test_a_config_that_cannot_be_is_failed_and_the_search_goes_on(begin, tmp_path):
    one = begin()
    end(one, one.next(), "failed", reason="too deep for the patch")
    end(one, one.next(), score=None)
    end(one, one.next(), score=0.5)
    assert states(one) == ["FAIL", "FAIL", "COMPLETE"]
    reasons = [trial["reason"] for trial in json.loads((tmp_path / "search.json").read_text())["trials"]]
    assert reasons == ["too deep for the patch", "it has no score", None]
    assert one.next().number == 3


def test_a_job_that_is_killed_is_done_again_at_most_twice(begin):
    one = begin()
    numbers = []
    for _ in range(4):
        job = one.next()
        numbers.append(job.number)
        end(one, job, "failed", reason="killed by SIGKILL, maybe since the machine's memory ran out")
    assert numbers == [0, 0, 0, 1]
    assert states(one) == ["FAIL", "RUNNING"]


def test_the_trials_of_a_process_that_died_are_taken_over_once(begin):
    dead, other, third = begin(trials=3), begin(trials=3), begin(trials=3)
    lost = [dead.next(), dead.next()]
    own = other.next()
    assert [job.number for job in [*lost, own]] == [0, 1, 2]
    assert third.next() is None  # all are under way
    assert not third.is_empty
    die(dead)
    third.next_look = float("-inf")
    again = [other.next(), third.next()]
    assert [job.overrides for job in again] == [job.overrides for job in lost]
    for one, job in zip([other, third, other], [*again, own], strict=True):
        end(one, job, score=0.5)
    for one in (other, third):
        assert one.next() is None
        assert one.is_empty
    assert states(third) == ["COMPLETE"] * 3


def test_trials_that_run_on_a_cluster_are_watched_again(begin):
    dead, other = begin(), begin()
    lost = [dead.next(), dead.next()]
    assert other.take({0, 1}) == []
    die(dead)
    [again] = other.take({1, 3})
    assert again.overrides == lost[1].overrides
    assert other.next().overrides == lost[0].overrides


def test_what_a_job_did_whose_process_died_is_taken_in(begin, tmp_path):
    dead, other = begin(trials=1), begin(trials=1)
    job = dead.next()
    job.folder.mkdir()
    (job.folder / "result.json").write_text(json.dumps({"status": "done", "score": 0.7, "seconds": 1.0}))
    die(dead)
    assert other.next() is None
    assert [trial.value for trial in other.trials()] == [0.7]


def test_an_interrupted_trial_goes_on_when_the_search_is_begun_again(begin):
    one = begin()
    job = one.next()
    end(one, job, "interrupted", reason="interrupted")
    die(one)
    assert begin().next().overrides == job.overrides


def test_a_trial_that_someone_cancels_does_not_come_again(begin):
    one = begin()
    first = one.next()
    end(one, first, "interrupted", reason="cancelled (scancel); interrupted by SIGTERM after step 3")
    assert one.next().number == 1
    assert states(one) == ["FAIL", "RUNNING"]


def test_half_a_line_of_a_journal_is_forgotten(begin, tmp_path):
    one = begin()
    end(one, one.next(), score=0.5)
    with (tmp_path / "study.journal").open("a") as journal:
        journal.write('{"op_code":6,"wor')
    assert states(begin()) == ["COMPLETE"]


def test_a_study_of_other_values_is_refused(begin, tmp_path):
    one = begin()
    one.next()
    die(one)
    text = (tmp_path / "study.journal").read_text()
    (tmp_path / "study.journal").write_text(text.replace("dice_ce", "${oc.env:HOME}"))
    with pytest.raises(MedsegError, match="trial 0 is not of the space"):
        begin().next()
    for attribute in ({"seconds": "x"}, {"seed": "1 dataset=table"}, {"kills": [1]}):
        line = {"op_code": 8, "worker_id": "x", "trial_id": 0, "user_attr": attribute}
        (tmp_path / "study.journal").write_text(f"{text}{json.dumps(line)}\n")
        with pytest.raises(MedsegError, match="trial 0 has"):
            begin()
    (tmp_path / "study.journal").write_text("[1]\n")
    with pytest.raises(MedsegError, match="no readable journal of a study"):
        begin()
    (tmp_path / "study.journal").unlink()
    (tmp_path / "study.journal").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MedsegError, match="cannot be written"):
        begin()
