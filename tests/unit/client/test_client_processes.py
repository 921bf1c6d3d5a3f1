"""One client, shared: by many threads, and by the children of a process that forks."""

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from client_fakes import ended, progress

import personae
from tests.unit.client.conftest import HASTY

RUN_S = 60

# A channel that was used and a stream that is open, when three children are made that use the client at once.
FORKING = """
import os, sys, traceback
import personae

def work(place):
    assert client.get_training("t1").name == training.name
    assert [event.sequence for event in training.events()] == [1, 2, 3]
    (image,) = client.generate("a", seeds=[place])
    assert image.content == f"a/{place}".encode()
    assert len(list(client.generate_many(map(str, range(20))))) == 20
    client.close()

client = personae.Client(sys.argv[1], sys.argv[2])
training = client.get_training("t1")
watch = training.events()
assert next(watch).sequence == 1
children = []
for place in range(3):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(place)
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
assert [event.sequence for event in watch] == [2, 3]
work(9)
"""


def test_a_client_that_was_made_before_a_fork_works_in_the_children(
    trainer, trainer_address, inference_address, monkeypatch
):
    monkeypatch.delenv("GRPC_ENABLE_FORK_SUPPORT", raising=False)
    trainer.events = [progress(1), progress(2), ended(3)]
    command = [sys.executable, "-c", FORKING, trainer_address, inference_address]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_S)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_importing_it_leaves_the_environment_as_it_was():
    program = "import os\nbefore = dict(os.environ)\nimport personae\nassert dict(os.environ) == before"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=RUN_S)


LEAVING = """
import sys
import personae

client = personae.Client(inference=sys.argv[1])
images = client.generate_many(map(str, range(100)))
next(images)
print("left")
"""


def test_a_program_that_ends_in_the_midst_of_a_batch_ends(inference, inference_address):
    begun = threading.Semaphore(0)

    def hang(context):
        left = threading.Event()
        context.add_callback(left.set)
        begun.release()
        left.wait(2 * RUN_S)

    inference.instead["Generate"] = [lambda context: [begun.acquire() for _ in range(3)], hang, hang, hang]
    command = [sys.executable, "-c", LEAVING, inference_address]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_S)
    assert (ran.returncode, ran.stdout) == (0, "left\n")


def test_a_hundred_threads_share_a_client(trainer_address, inference_address):
    with personae.Client(trainer_address, inference_address, patience=HASTY) as client:

        def work(place):
            record = client.get_training("t1").record
            return record.state, [image.content for image in client.generate("a", seeds=[place])]

        with ThreadPoolExecutor(100) as threads:
            answers = list(threads.map(work, range(300)))
    assert answers == [("queued", [f"a/{place}".encode()]) for place in range(300)]


@pytest.mark.parametrize(
    "error",
    [
        personae.InvalidRequest([personae.Violation("prompts", "found none")], reason="X"),
        personae.Busy("full", reason="QUEUE_FULL", retry_after_s=0.5),
        personae.Incomplete([personae.Missing(3, "a", (1,), personae.NotFound("gone"))]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_from_a_worker_process_to_its_parent(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__notes__) == (type(error), str(error), error.__notes__)
    # Of a Missing, the error within is another object.
    assert {name: str(value) for name, value in vars(again).items() if name != "missing"} == {
        name: str(value) for name, value in vars(error).items() if name != "missing"
    }
