"""flowertune.base.imports: imports in a thread of their own."""

from threading import Event, current_thread

from flowertune.base.imports import Meanwhile


def test_imports_go_on_meanwhile_and_done_waits_for_them():
    may_end, threads = Event(), []

    def imports():
        may_end.wait(10)
        threads.append(current_thread())

    meanwhile = Meanwhile(imports)
    assert not threads
    may_end.set()
    meanwhile.done()
    assert threads and threads[0] is not current_thread() and not threads[0].daemon


def test_a_module_that_cannot_be_imported_is_left_to_whoever_needs_it():
    def imports():
        raise ImportError("no such module")

    Meanwhile(imports).done()
