"""mpirun sapwood train: with MPICH and Open MPI the same as one process, and a rank that is killed is named and made up for.

SAPWOOD_COMM and the launchers' own variables decide which MPI is loaded; a launcher that is not installed is left out.
"""

import json
import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from conftest import BUILD, COMMAND, SOURCE

LAUNCHERS = {
    "mpich": (["mpiexec.mpich"], "PMI_RANK"),
    "openmpi": (["mpiexec.openmpi", "--oversubscribe"], "OMPI_COMM_WORLD_RANK"),
}
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
HLF = ["--model", SOURCE / "models/hlf.keras", "--epochs", "2", "--auc"]
GRU = ["--model", SOURCE / "models/inclusive_gru.keras", "--epochs", "1", "--steps-per-epoch", "2"]


@pytest.fixture(params=sorted(LAUNCHERS))
def launcher(request):
    if not shutil.which(LAUNCHERS[request.param][0][0]):
        pytest.skip(f"{request.param} is not installed")
    if not (BUILD / f"lib/libsapwood-{request.param}.so").exists():
        pytest.skip(f"this build has no {request.param}")
    return request.param


def command(launcher, ranks, data, out, *options):
    before = [*LAUNCHERS[launcher][0], "-n", str(ranks)] if ranks else []
    return [*before, COMMAND, "train", "--data", str(data), "--out", str(out), "--threads", "1", *map(str, options)]


def train(launcher, ranks, data, out, *options):
    result = subprocess.run(command(launcher, ranks, data, out, *options), capture_output=True, text=True, timeout=120,
                            env=ENVIRONMENT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("model: ") == 1 and result.stderr.count("epoch 1/") <= 1  # rank 0 alone speaks
    return out


def history(run):
    epochs = json.loads((run / "history.json").read_text())
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in epochs]


def weights(run):
    with zipfile.ZipFile(run / "model.keras") as model:
        return model.read("model.weights.h5")


def assert_close(a, b):
    for x, y in zip(history(a), history(b), strict=True):
        assert x == pytest.approx(y, abs=1e-5)


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    """One process, of each network."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: train(None, 0, dataset, folder / name, *options) for name, options in
            {"hlf": HLF, "gru": GRU, "fixed": [*HLF, "--deterministic"]}.items()}


def test_the_same_losses_on_any_number_of_ranks(launcher, dataset, alone, tmp_path):
    for ranks in (1, 2, 4):
        assert_close(alone["hlf"], train(launcher, ranks, dataset, tmp_path / f"hlf-{ranks}", *HLF))
    assert_close(alone["gru"], train(launcher, 2, dataset, tmp_path / "gru", *GRU))


def test_a_fixed_order_gives_the_same_bits(launcher, dataset, alone, tmp_path):
    assert_close(alone["hlf"], alone["fixed"])
    for ranks in (2, 3):
        run = train(launcher, ranks, dataset, tmp_path / f"fixed-{ranks}", *HLF, "--deterministic")
        assert weights(run) == weights(alone["fixed"])
        assert history(run) == history(alone["fixed"])


def rank_process(out, variable, rank):
    """The process of a rank; beside it there is a small one in a session of its own."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            of_rank = Path(f"/proc/{parent}/comm").read_text().strip() == "sapwood"
        except OSError:
            continue
        if words[0] == COMMAND.encode() and str(out).encode() in words and not of_rank:
            if f"{variable}={rank}".encode() in variables:
                return int(folder.name)
    return None


def test_a_killed_rank_is_named_and_fewer_go_on(launcher, dataset, tmp_path):
    out = tmp_path / "run"
    options = ["--model", SOURCE / "models/inclusive_gru.keras", "--epochs", "3", "--batch", "64", "--validation", "no",
               "--steps-per-epoch", "4"]
    job = subprocess.Popen(command(launcher, 3, dataset, out, *options, "--checkpoint-every", "0.05"), text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
    limit = time.monotonic() + 60
    while not (tmp_path / "run.partial/checkpoint").exists():
        assert time.monotonic() < limit and job.poll() is None, job.communicate()[1]
        time.sleep(0.02)
    killed = time.monotonic()
    os.kill(rank_process(out, LAUNCHERS[launcher][1], 1), 9)
    _, said = job.communicate(timeout=30)
    assert time.monotonic() - killed < 30 and job.returncode != 0
    assert f"sapwood: rank 1 on {os.uname().nodename} (process " in said and "ended without a word" in said, said
    train(launcher, 2, dataset, out, *options)
    whole = train(None, 0, dataset, tmp_path / "whole", *options)
    assert_close(whole, out)


def test_a_stopped_rank_is_named(launcher, dataset, tmp_path):
    out = tmp_path / "run"
    options = ["--model", SOURCE / "models/inclusive_gru.keras", "--epochs", "50", "--validation", "no",
               "--timeout", "8"]
    job = subprocess.Popen(command(launcher, 2, dataset, out, *options), text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, env=ENVIRONMENT)
    limit = time.monotonic() + 60
    while not (tmp_path / "run.partial/checkpoint").exists():
        assert time.monotonic() < limit and job.poll() is None, job.communicate()[1]
        time.sleep(0.02)
    process = rank_process(out, LAUNCHERS[launcher][1], 1)
    os.kill(process, 19)
    try:
        _, said = job.communicate(timeout=30)
    finally:
        os.kill(process, 18) if Path(f"/proc/{process}").exists() else None
    assert f"sapwood: rank 1 on {os.uname().nodename} is lost: nothing was heard of it for 8 seconds" in said, said
    assert job.returncode != 0


def has_carrier(host):
    show = subprocess.run(["ip", "-n", host, "-json", "link", "show", "dev", "cable"], capture_output=True, text=True, check=True)
    return json.loads(show.stdout)[0]["operstate"] == "UP"


@pytest.fixture
def two_hosts(tmp_path):
    """Two network namespaces with a cable between them; and what stands in for ssh."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "mpiexec.mpich"))):
        pytest.skip("hosts of their own need root, ip, unshare and MPICH")
    names = [f"sap{os.getpid() % 10000}{side}" for side in "ab"]
    try:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
                pytest.skip("this system gives out no network namespaces")
        cable = ["ip", "link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1]]
        if subprocess.run(cable, capture_output=True).returncode != 0:
            pytest.skip("this system has no veth devices")
        for number, name in enumerate(names, 1):
            inside = ["ip", "-n", name]
            subprocess.run([*inside, "addr", "add", f"10.77.0.{number}/24", "dev", "cable"], check=True)
            for device in ("lo", "cable"):
                subprocess.run([*inside, "link", "set", device, "up"], check=True)
        limit = time.monotonic() + 20
        while not all(has_carrier(name) for name in names):  # MPICH leaves out an interface that is not ready yet
            assert time.monotonic() < limit
            time.sleep(0.05)
        shell = tmp_path / "shell"
        shell.write_text('#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\n'
                         f'case $1 in *.1) host={names[0]};; *) host={names[1]};; esac\nshift\n'
                         'exec ip netns exec $host unshare -u sh -c "hostname $host; $*"\n')
        shell.chmod(0o755)
        yield names, shell
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_a_host_that_is_cut_off_is_named(two_hosts, dataset, tmp_path):
    names, shell = two_hosts
    options = ["--model", SOURCE / "models/inclusive_gru.keras", "--epochs", "50", "--validation", "no",
               "--timeout", "5"]
    run = command(None, 0, dataset, tmp_path / "run", *options)
    hosts = ["-launcher", "rsh", "-launcher-exec", shell, "-hosts", "10.77.0.1,10.77.0.2", "-iface", "cable", "-n", "2"]
    job = subprocess.Popen(["ip", "netns", "exec", names[0], "mpiexec.mpich", *map(str, hosts), *run], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT | {"UCX_TLS": "tcp,self"})
    limit = time.monotonic() + 60
    while not (tmp_path / "run.partial/checkpoint").exists():
        assert time.monotonic() < limit and job.poll() is None, job.communicate()[1]
        time.sleep(0.02)
    process = rank_process(tmp_path / "run", "PMI_RANK", 1)
    subprocess.run(["ip", "-n", names[1], "link", "set", "cable", "down"], check=True)
    _, said = job.communicate(timeout=30)
    assert job.returncode != 0
    assert f"sapwood: rank 1 on {names[1]} is lost: nothing was heard of it for 5 seconds" in said, said
    while Path(f"/proc/{process}").exists():  # nor does the other side hang
        assert time.monotonic() < limit + 30
        time.sleep(0.1)


def test_bad_data_are_told_of_once(launcher, tmp_path):
    result = subprocess.run(command(launcher, 2, tmp_path / "none", tmp_path / "run", *HLF), capture_output=True,
                            text=True, timeout=60, env=ENVIRONMENT)
    assert result.returncode != 0
    assert result.stderr.count("sapwood: ") == 1 and "rank 0 on " in result.stderr


def test_a_launcher_that_tells_nothing_is_refused(sapwood, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PMI", "OMPI"))}
    result = sapwood("train", "--data", tmp_path, "--out", tmp_path / "run", *HLF, check=False,
                     env=environment | {"PMIX_RANK": "0"})
    assert result.returncode == 2 and "set SAPWOOD_COMM to mpich or openmpi" in result.stderr


def test_the_slurm_example_is_well_formed():
    script = SOURCE / "examples/slurm/train.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert text.startswith("#!/bin/bash\n#SBATCH ") and "srun" in text and "SAPWOOD_COMM" in text
    known = {word for line in text.splitlines() if "sapwood train" in line or line.strip().startswith("--")
             for word in line.split() if word.startswith("--")}
    help_text = subprocess.run([COMMAND, "train", "--help"], capture_output=True, text=True, check=True).stdout
    for word in known - {"--mpi=pmi2", "--kill-on-bad-exit=1"}:
        assert word in help_text, word
