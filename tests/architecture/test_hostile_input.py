"""Rules that keep hostile bytes from becoming code, read from the source of everything that is shipped or served."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.tracked_files import tracked

ROOT = Path(__file__).parents[2]
SOURCES = {
    str(path): ast.parse((ROOT / path).read_text()) for path in tracked(ROOT, "*.py") if path.parts[0] != "tests"
}
# Each can run code that lies in what it reads, or hands objects to other processes as pickles.
FORBIDDEN_MODULES = {
    "pickle",
    "_pickle",
    "pickletools",
    "cPickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "joblib",
    "multiprocessing",
    "torch.multiprocessing",
}
FORBIDDEN_CALLS = {
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.hub.load",
    "np.load",
    "numpy.load",
    "np.save",
    "load_lora_weights",
    "hf_hub_download",
    "snapshot_download",
    "ProcessPoolExecutor",
    "eval",
    "exec",
    "compile",
}
# Between the processes of one training, which one launcher started: torch.distributed knows no other way for words.
FORBIDDEN_NAMES = {"gather_object", "all_gather_object", "broadcast_object_list", "scatter_object_list"}
PICKLES_TO_ITS_OWN = {"trainer_service/worker/processes.py"}


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Every call, with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func), node


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module and `module.name` that is imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from named(node)


def named(node: ast.ImportFrom) -> list[str]:
    """What `from module import name` imports, as `module.name`."""
    return [f"{node.module}.{alias.name}" for alias in node.names]


def test_nothing_imports_what_could_run_the_code_in_a_file() -> None:
    found = {
        (file, name)
        for file, tree in SOURCES.items()
        for name in imported(tree)
        if name in FORBIDDEN_MODULES or name.partition(".")[0] in FORBIDDEN_MODULES
    }
    assert found == set()


def test_nothing_calls_what_could_run_the_code_in_a_file() -> None:
    found = {
        (file, name)
        for file, tree in SOURCES.items()
        for name, _ in calls(tree)
        if name in FORBIDDEN_CALLS or name.rpartition(".")[2] in FORBIDDEN_CALLS - {"eval", "exec", "compile"}
    }
    assert found == set()


def test_only_the_processes_of_one_training_exchange_objects() -> None:
    found = {
        file for file, tree in SOURCES.items() for name in imported(tree) if name.rpartition(".")[2] in FORBIDDEN_NAMES
    }
    assert found == PICKLES_TO_ITS_OWN


def test_weights_are_read_from_safetensors_and_nothing_is_fetched() -> None:
    loads = [
        (file, name, {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords})
        for file, tree in SOURCES.items()
        for name, call in calls(tree)
        if name.endswith(".from_pretrained")
    ]
    assert len(loads) >= 7
    for file, name, keywords in loads:
        assert keywords.get("local_files_only") == "True", (file, name)
        # Tokenizers and preprocessors are JSON and text.
        if not any(word in name for word in ("Tokenizer", "Processor")):
            assert keywords.get("use_safetensors") == "True", (file, name)
        # Classes that choose another by the folder ask at a terminal where nothing is said.
        unsaid = None if name.startswith("Auto") else "False"
        assert keywords.get("trust_remote_code", unsaid) == "False", (file, name)


def test_pictures_are_opened_with_a_list_of_formats() -> None:
    opened = [
        (file, {keyword.arg for keyword in call.keywords})
        for file, tree in SOURCES.items()
        for name, call in calls(tree)
        if name == "Image.open" and not file.startswith("client/")
    ]
    assert [file for file, keywords in opened if "formats" not in keywords] == []
    assert len(opened) >= 3


def test_the_services_decode_pictures_from_outside_in_child_processes_only() -> None:
    decoders = {
        "trainer_service.picture_doctor.examine",
        "trainer_service.picture_doctor.examine_mask",
        "inference_service.picture_decoding.decode",
        "service_kit.picture_file.opened",
        "service_kit.picture_file.decode",
        # The modules as such, from which anything could be called.
        "trainer_service.picture_doctor",
        "inference_service.picture_decoding",
        "service_kit.picture_file",
    }
    users = {}
    for file, tree in SOURCES.items():
        modules = {name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in named(node)}
        if used := modules & decoders:
            users[file] = sorted(used)
    # They judge and decode what they are given; who gives it to them is below.
    for pure in ("trainer_service/picture_doctor.py", "inference_service/picture_decoding.py"):
        assert users.pop(pure) == ["service_kit.picture_file"]
    # It asks whether a mask is white and of the right proportions.
    assert users.pop("inference_service/start_pictures.py") == ["service_kit.picture_file"]
    assert users == {
        "trainer_service/decoder_child.py": [
            "trainer_service.picture_doctor.examine",
            "trainer_service.picture_doctor.examine_mask",
        ],
        "inference_service/decoder_child.py": ["inference_service.picture_decoding.decode"],
    }
