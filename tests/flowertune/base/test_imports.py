"""flowertune.base.imports: imports in a thread of their own."""

import gc
import sys
from threading import Event, current_thread

from flowertune.base.imports import Meanwhile, begin, finish, uncollected


def test_imports_go_on_meanwhile_and_done_waits_for_them():
    may_end, threads, before = Event(), [], sys.getswitchinterval()

    def imports():
        may_end.wait(10)
        threads.append((current_thread(), sys.getswitchinterval(), gc.isenabled()))

    meanwhile = Meanwhile(imports)
    assert not threads
    may_end.set()
    meanwhile.done()
    ((thread, interval, collects),) = threads
    assert thread is not current_thread() and not thread.daemon
    assert interval < before == sys.getswitchinterval()
    assert not collects and gc.isenabled()


def test_a_module_that_cannot_be_imported_is_left_to_whoever_needs_it():
    def imports():
        raise ImportError("no such module")

    Meanwhile(imports).done()


def test_who_switched_collection_off_keeps_it_off():
    with uncollected():
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count()
    gc.unfreeze()


def test_what_was_begun_is_begun_once_in_a_process():
    calls = []

    def imports():
        calls.append(1)

    finish(imports)
    for _ in range(3):  # as each message in a worker does
        begin(imports)
        finish(imports)
    assert calls == [1]
