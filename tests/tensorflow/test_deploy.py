"""deploy/: the manifest is what Kubernetes takes, its parts fit each other and the command, and the image's recipe names what exists."""

import copy
import json
import re
import shlex

import jsonschema
import pytest
import yaml
from conftest import SOURCE
from sapwood._tensorflow import _parse, kubernetes_config, tf_config

MANIFEST = SOURCE / "deploy/kubernetes.yaml"
SCHEMA = jsonschema.Draft202012Validator(json.loads((SOURCE / "tests/tensorflow/kubernetes.schema.json").read_text()))


@pytest.fixture
def manifest():
    service, job = yaml.safe_load_all(MANIFEST.read_text())
    return service, job


def test_manifest_is_valid(manifest):
    jsonschema.Draft202012Validator.check_schema(SCHEMA.schema)
    for document in manifest:
        SCHEMA.validate(document)


@pytest.mark.parametrize("path, value", [
    (("spec", "completionmode"), "Indexed"),
    (("spec", "completionMode"), "indexed"),
    (("spec", "template", "spec", "restartPolicy"), "Always"),
    (("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), 70000),
    (("spec", "template", "spec", "containers", 0, "args", 4), 4),
    (("metadata", "name"), "Sapwood_train"),
])
def test_mistakes_are_noticed(manifest, path, value):
    job = copy.deepcopy(manifest[1])
    at = job
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert not SCHEMA.is_valid(job)


def test_parts_fit_each_other(manifest):
    service, job = manifest
    pod = job["spec"]["template"]["spec"]
    worker = pod["containers"][0]
    stage, *words = worker["args"]
    given, common = _parse(words)
    options, environment = dict(given), {entry["name"]: entry["value"] for entry in worker["env"]}
    assert stage == "train" and options["engine"] == "tensorflow" and not common
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(options["workers"])
    assert job["spec"]["completionMode"] == "Indexed"
    assert service["spec"]["clusterIP"] == "None" and pod["subdomain"] == service["metadata"]["name"] == environment["SAPWOOD_SERVICE"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    ports = {service["spec"]["ports"][0]["port"], worker["ports"][0]["containerPort"], int(environment["SAPWOOD_PORT"])}
    assert len(ports) == 1
    assert [mount["name"] for mount in worker["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
    assert all(options[name].startswith(worker["volumeMounts"][0]["mountPath"]) for name in ("data", "model", "out"))
    # what the pod of index 2 makes of all that
    config = json.loads(kubernetes_config(environment | {"JOB_COMPLETION_INDEX": "2"}, "sapwood-train-2", 4))
    assert config == json.loads(tf_config([f"sapwood-train-{i}.sapwood-train:2222" for i in range(4)], 2))


def test_tf_config_of_other_pods():
    assert kubernetes_config({}, "node7", 4) is None
    assert kubernetes_config({"JOB_COMPLETION_INDEX": "0"}, "fit-0", 1) is None
    config = json.loads(kubernetes_config({"JOB_COMPLETION_INDEX": "11"}, "my-fit-11.my-fit.ns.svc", 12))
    assert config["cluster"]["worker"][3] == "my-fit-3.my-fit:2222" and config["task"] == {"type": "worker", "index": 11}


def test_dockerfile_copies_what_is_there():
    text = (SOURCE / "deploy/Dockerfile").read_text().replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if re.match(r"COPY (?!--)", line)]
    copied = [name for _, *names, _ in lines for name in names]
    assert [name for name in copied if not (SOURCE / name).exists()] == []
    needed = re.findall(r"add_subdirectory\((\w+)\)", (SOURCE / "CMakeLists.txt").read_text())
    assert set(needed) - {"bench", "tests"} <= set(copied)
    assert "# for ./run test" in (SOURCE / "packages.txt").read_text()
    stages = re.findall(r"^FROM \S+(?: AS (\w+))?", text, re.MULTILINE)
    assert set(re.findall(r"--from=(\w+)", text)) <= set(stages)
