"""Warnings about a case's files: once in the log of a job, and every time where a run asks for them."""

from concurrent.futures import ThreadPoolExecutor

from medseg.io import warnings


def test_a_warning_is_logged_once_unless_a_run_wants_it_told(caplog):
    for _ in range(2):
        warnings.warn("notice of the first kind")
    assert caplog.messages == ["notice of the first kind"]
    for _ in range(2):
        with warnings.logged() as messages:
            warnings.warn("notice of the first kind")
            warnings.warn("notice of the first kind")
        assert messages == ["notice of the first kind"]
    assert caplog.messages == ["notice of the first kind"] * 3


def test_what_is_collected_is_not_logged_and_stays_with_its_thread(caplog):
    with warnings.collected() as messages, ThreadPoolExecutor(1) as pool:
        pool.submit(warnings.warn, "notice of another thread").result()
        warnings.warn("notice of this thread")
        with warnings.collected() as inner, warnings.logged():
            warnings.warn("notice within")
        warnings.warn("notice afterwards")
    assert messages == ["notice of this thread", "notice afterwards"]
    assert inner == ["notice within"]
    assert caplog.messages == ["notice of another thread"]


def test_what_was_warned_of_is_told_before_an_error(caplog):
    def read():
        with warnings.logged():
            warnings.warn("notice before an error")
            raise ValueError

    for _ in range(2):
        try:
            read()
        except ValueError:
            continue
    assert caplog.messages == ["notice before an error"] * 2


def test_each_job_of_a_process_has_a_whole_log(caplog):
    for _ in range(2):
        warnings.begin_job()
        warnings.warn("notice of every job")
    assert caplog.messages == ["notice of every job"] * 2
