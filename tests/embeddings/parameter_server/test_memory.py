from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

from posterhall.embeddings.parameter_server.memory import ArraySpec, Block, RecordLock, nameless_file

SPECS = [ArraySpec("a", "<f4", (3, 5)), ArraySpec("none", "<i8", (0,)), ArraySpec("b", "<i8", (7,))]


def test_arrays_of_a_block_are_zero_aligned_and_apart():
    block = Block(SPECS)
    assert not block["a"].any()
    block["a"][...] = 1
    assert not block["b"].any()
    shared = Block.shared(SPECS)
    assert shared["b"].ctypes.data % 64 == 0
    shared.close()


def test_two_mappings_of_a_file_are_the_same_memory():
    one = Block.shared(SPECS)
    two = Block(SPECS, os.dup(one.fd))
    one["b"][3] = 42
    assert two["b"][3] == 42
    one.close()
    two.close()
    assert two["b"][3] == 42  # the memory lasts as long as an array


def test_shared_memory_has_no_name_that_could_be_left_behind():
    before = set(os.listdir("/dev/shm"))
    block = Block.shared([ArraySpec("a", "<f4", (1000, 1000))])
    block["a"][...] = 1
    assert set(os.listdir("/dev/shm")) == before
    block.close()


def test_a_lock_excludes_threads():
    lock = RecordLock(nameless_file(0), 0)
    counter = np.zeros(1, np.int64)

    def count() -> None:
        for _ in range(200):
            with lock:
                value = int(counter[0])
                time.sleep(0)
                counter[0] = value + 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter[0] == 800


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_lock_of_a_killed_process_is_free_and_others_were_never_taken():
    file = nameless_file(0)
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with RecordLock(file, 5):
            os.write(told, b"x")
            signal.pause()
        os._exit(0)
    os.read(ready, 1)
    with RecordLock(file, 6):
        pass
    got = threading.Event()

    def take() -> None:
        with RecordLock(file, 5):
            got.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not got.wait(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert got.wait(5)
    thread.join()
    for fd in (ready, told, file):
        os.close(fd)
