"""The Job that is made of an operator's template: what is filled in, what is kept, what is refused before the start."""

import copy
import re
from pathlib import Path

import pytest

from service_kit.names import TrainingName
from service_kit.settings import SettingsError, read_settings
from tests.kubernetes_api import Object, refusal
from tests.unit.trainer.jobs_in_a_cluster import PAGE, template
from trainer_service.job_template import GPU, QUEUE, JobTemplate, TemplateError, read_template
from trainer_service.settings import OTHER_PROCESSES, TrainerSettings, workers_environment

TRAINING = TrainingName("a-project-", "training-0123456789abcdef0123")
GIB = 2**30


def worker(job: Object) -> Object:
    (found,) = (found for found in job["spec"]["template"]["spec"]["containers"] if found["name"] == "worker")
    return dict(found)


def with_worker(**fields: object) -> Object:
    body = template()
    body["spec"]["template"]["spec"]["containers"][0] |= fields
    return body


def test_the_least_template_makes_a_job_that_a_cluster_takes() -> None:
    body = template()
    given = copy.deepcopy(body)
    job = JobTemplate(body, "a-bucket", {"PERSONAE_S3_BUCKET": "b"}).job(TRAINING, 3 * GIB)
    assert refusal(job) == ""
    assert body == given
    container = worker(job)
    assert container["command"] == ["python", "-m", "trainer_service.worker"]
    assert container["args"] == [str(TRAINING)]
    assert container["env"] == [{"name": "PERSONAE_S3_BUCKET", "value": "b"}]
    assert container["resources"] == {"limits": {GPU: 1}, "requests": {"memory": str(3 * GIB)}}
    spec = job["spec"]
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (6, "Never")
    assert "suspend" not in spec
    for place in (job, spec["template"]):
        assert place["metadata"]["annotations"]["personae/training"] == str(TRAINING)
        assert place["metadata"]["labels"]["personae/project"] == "a-project"


def test_exit_codes_are_read_as_the_worker_means_them() -> None:
    rules = JobTemplate(template(), "a-bucket", {}).job(TRAINING, 0)["spec"]["podFailurePolicy"]["rules"]
    read = {code: rule["action"] for rule in rules for code in rule.get("onExitCodes", {}).get("values", [])}
    assert read == {42: "FailJob", 75: "Ignore", 143: "Ignore"}
    (disrupted,) = (rule for rule in rules if "onPodConditions" in rule)
    assert disrupted["action"] == "Ignore"


def test_what_the_operator_says_is_kept() -> None:
    body = with_worker(
        command=["torchrun", "--standalone", "--nproc-per-node=4", "-m", "trainer_service.worker"],
        env=[{"name": "PERSONAE_S3_BUCKET", "value": "theirs"}],
        resources={"limits": {GPU: 4, "memory": "64Gi"}, "requests": {"cpu": 8}},
    )
    body["metadata"] = {"labels": {QUEUE: "gpus", "team": "cats"}}
    body["spec"] |= {"backoffLimit": 2, "ttlSecondsAfterFinished": 60, "activeDeadlineSeconds": 7200}
    job = JobTemplate(body, "a-bucket", {"PERSONAE_S3_BUCKET": "ours"}, "unused:1").job(TRAINING, GIB)
    assert refusal(job) == ""
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["team"] == "cats"
    kept = {"backoffLimit": 2, "ttlSecondsAfterFinished": 60, "activeDeadlineSeconds": 7200}
    assert kept.items() <= job["spec"].items()
    container = worker(job)
    assert container["image"] == "registry.example/trainer:1"
    assert container["command"][0] == "torchrun"
    assert container["env"] == [{"name": "PERSONAE_S3_BUCKET", "value": "theirs"}]
    assert container["resources"] == {"limits": {GPU: 4, "memory": "64Gi"}, "requests": {"cpu": 8}}


def test_an_estimate_beyond_the_template_raises_request_and_limit() -> None:
    body = with_worker(resources={"limits": {GPU: "0", "memory": "2Gi"}, "requests": {"memory": "1Gi"}})
    resources = worker(JobTemplate(body, "a-bucket", {}).job(TRAINING, 5 * GIB))["resources"]
    memory = {"memory": str(5 * GIB)}
    assert resources == {"limits": {GPU: "0"} | memory, "requests": memory}


def test_a_job_s_name_is_its_training_s_in_every_service_and_no_other_s() -> None:
    first, again, other = (JobTemplate(template(), bucket, {}) for bucket in ("a", "a", "b"))
    assert first.name(TRAINING) == again.name(TRAINING)
    names = {first.name(TRAINING), other.name(TRAINING), first.name(TrainingName("b", TRAINING.training))}
    assert len(names) == 3
    assert first.labels != other.labels


def test_everything_that_is_wrong_with_a_template_is_said_at_once() -> None:
    body = with_worker(image="", resources={"limits": {"memory": "much"}}, imgae="typo")
    body["metadata"] = {"name": "mine"}
    body["spec"] |= {"completions": 3, "suspend": False}
    body["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    with pytest.raises(TemplateError) as caught:
        JobTemplate(body, "a-bucket", {})
    told = str(caught.value)
    wrong = ("imgae", "metadata.name", "completions", "suspend", "OnFailure", "'much'", "PERSONAE_KUBERNETES_IMAGE")
    for part in wrong:
        assert part in told
    assert len(told.splitlines()) == len(wrong)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "batch/v1"),
        ("kind: Job\napiVersion: batch/v2\nspec: {}", "batch/v1"),
        ("[1, 2", "expected"),
        ("apiVersion: batch/v1\nkind: Job\nmetadata: {}", "spec"),
        ("apiVersion: batch/v1\nkind: Job\nspec: {template: 7}", "template"),
        ("apiVersion: batch/v1\nkind: Job\nmetadata:\nspec: {template: {spec: {containers: []}}}", "'worker'"),
        ("apiVersion: batch/v1\nkind: Job\nspec: {template: {spec: {containers: [{name: other}]}}}", "'worker'"),
    ],
)
def test_what_is_no_template_is_refused_in_words(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(TemplateError, match=says):
        read_template(file, "a-bucket", {}, "an-image")


def test_the_template_of_the_page_makes_a_job_that_a_cluster_takes(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(apiVersion: batch/v1\n.*?)```", PAGE.read_text(), flags=re.DOTALL)
    file = tmp_path / "job.yaml"
    file.write_text(text)
    assert refusal(read_template(file, "a-bucket", {}, "trainer:1").job(TRAINING, 20 * GIB)) == ""


def test_workers_are_told_what_they_need_and_no_secret() -> None:
    environment = {
        "PERSONAE_S3_ENDPOINT": "http://store:9000",
        "PERSONAE_S3_ACCESS_KEY": "key",
        "PERSONAE_S3_SECRET_KEY": "hush",
        "PERSONAE_S3_SECRET_KEY_FILE": "/etc/personae/s3/secret_key",
        "PERSONAE_BASE_MODELS": "toon-64",
        "PERSONAE_TRAINER_STAGE_PATIENCE": "2",
        "PERSONAE_TRAINER_ADDRESS": "127.0.0.1:0",
        "HOME": "/root",
    }
    told = {"PERSONAE_S3_ENDPOINT", "PERSONAE_BASE_MODELS", "PERSONAE_TRAINER_STAGE_PATIENCE"}
    assert workers_environment(environment).keys() == told


def test_the_executor_is_one_of_two() -> None:
    settings = read_settings(TrainerSettings, {"PERSONAE_EXECUTOR": "kubernetes"}, OTHER_PROCESSES)
    assert settings.executor == "kubernetes"
    with pytest.raises(SettingsError, match="PERSONAE_EXECUTOR"):
        read_settings(TrainerSettings, {"PERSONAE_EXECUTOR": "slurm"}, OTHER_PROCESSES)
