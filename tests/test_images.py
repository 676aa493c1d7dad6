"""Images from recipe to cluster: the real Packer on the stand-in AWS, setup.sh for real on a
throw-away root, then a cluster from the image by its name, its packages and its versions.

The tests share one home, one cluster, and run in the order in which they stand.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, Running, clients
from reliability import told
from wheels import wheel

from bilbo import local
from bilbo.profile.writing import with_ami

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True)
class Workshop:
    """A home with a running stand-in, the folder `base` with recipe and wheels, and the first
    image that was built: what `image build` printed and what it said meanwhile."""

    bilbo: Bilbo
    base: Path
    printed: str
    said: str

    @property
    def ami(self) -> str:
        found = re.search(r"^AMI: (ami-[0-9a-f]{17})$", self.printed, re.MULTILINE)
        assert found, self.printed
        return found[1]

    def build(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        recipe = str(self.base / "small.pkrvars.hcl")
        return self.bilbo("--local", "image", "build", recipe, *arguments, **options)

    def profile(self, **worker: Any) -> dict[str, Any]:
        common = {key: value for key, value in INSTANCE.items() if key != "ami"}
        install = ["--no-index", f"tiny @ file://{self.base}/wheels/tiny-1.0-py3-none-any.whl"]
        return {
            "instance": {**common, "image": "small", "packages": install},
            "dask": {"worker": {**ONE_PROCESS, "instance": worker}},
        }

    def images(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.bilbo("images", "--json").stdout)
        return found

    def nothing_is_left_of_building(self) -> None:
        ec2, _ = clients(self.bilbo.home)
        reservations = ec2.describe_instances(
            Filters=[{"Name": "tag:bilbo:image", "Values": ["*"]}]
        )["Reservations"]
        states = {i["State"]["Name"] for r in reservations for i in r["Instances"]}
        assert states == {"terminated"}
        assert {pair["KeyName"] for pair in ec2.describe_key_pairs()["KeyPairs"]} == {"local"}
        groups = {group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]}
        assert not any(name.startswith("packer") for name in groups)
        made = [image["ImageId"] for image in ec2.describe_images(Owners=["self"])["Images"]]
        assert sorted(made) == sorted(image["ami"] for image in self.images())


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """An image built by a recipe that installs a small set; `--write-profile` fills in `w.json`."""
    base = tmp_path_factory.mktemp("recipe")
    wheels = base / "wheels"
    wheels.mkdir()
    for name, version in (("dask", "2026.8.0"), ("tiny", "1.0"), ("tiny", "2.0")):
        wheel(wheels, name, version, {f"{name}_here.py": f"VERSION = {version!r}\n"})
    wheel(wheels, "distributed", "2000.1")
    (base / "pins.txt").write_text(f"--no-index\n--find-links {wheels}\ndask==2026.8.0\n")
    (base / "small.pkrvars.hcl").write_text(
        f'name = "small"\npython = "{PYTHON}"\nroot = "{base}/root"\n'
        'requirements = "pins.txt"\nextra_requirements = ["tiny==1.0"]\n'
    )
    (base / "root").mkdir()
    bilbo = Bilbo(tmp_path_factory.mktemp("home"))
    bilbo.profile("w", {"notebook": {}})
    try:
        unbuilt = Workshop(bilbo, base, "", "")
        local.start(bilbo.home)
        document = {"region": "us-east-1", "instance": INSTANCE, "notebook": {}}
        command = ("permissions", bilbo.profile("allowed", document), "--step", "image")
        (base / "policy.json").write_text(bilbo(*command).stdout)
        local.inject(bilbo.home, f"policy={base / 'policy.json'}")
        done = unbuilt.build("--write-profile", "w.json")
        local.inject(bilbo.home, "clear")
        yield Workshop(bilbo, base, done.stdout, done.stderr)
    finally:
        local.stop(bilbo.home)


def test_a_recipe_becomes_an_image(workshop: Workshop) -> None:
    """Packer starts a machine, setup.sh installs on it, an AMI is made, all else is gone."""
    assert f"\nName: small\nAMI: {workshop.ami}\nRegion: us-east-1\n" in workshop.printed
    assert "installing Python packages into" in workshop.said
    assert "Creating AMI small-" in workshop.said
    versions = (workshop.base / "root/opt/bilbo/versions.txt").read_text()
    assert "dask==2026.8.0" in versions
    assert "tiny==1.0" in versions
    workshop.nothing_is_left_of_building()
    profile = json.loads((workshop.bilbo.home / "profiles/w.json").read_text())
    assert profile == {"instance": {"ami": workshop.ami}, "notebook": {}}


def test_an_image_says_what_is_in_it(workshop: Workshop) -> None:
    """AMI and snapshot are tagged with name, recipe, Python and versions; `images` lists them."""
    ec2, _ = clients(workshop.bilbo.home)
    (image,) = ec2.describe_images(ImageIds=[workshop.ami])["Images"]
    tags = {tag["Key"]: tag["Value"] for tag in image["Tags"]}
    assert re.fullmatch("[0-9a-f]{16}", tags.pop("bilbo:recipe"))
    assert tags == {
        "Name": "small",
        "bilbo:image": "small",
        "bilbo:base": "ubuntu",
        "bilbo:python": PYTHON,
        "bilbo:version:dask": "2026.8.0",
    }
    (snapshot,) = {disk["Ebs"]["SnapshotId"] for disk in image["BlockDeviceMappings"]}
    found = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["Tags"]
    assert {"Key": "bilbo:image", "Value": "small"} in found
    (listed,) = workshop.images()
    assert (listed["ami"], listed["name"], listed["python"]) == (workshop.ami, "small", PYTHON)
    assert listed["versions"] == {"dask": "2026.8.0"}
    table = workshop.bilbo("images").stdout.splitlines()
    assert table[0].split() == ["NAME", "AMI", "REGION", "BUILT", "PYTHON", "ENGINES", "RECIPE"]
    assert table[1].split()[:2] == ["small", workshop.ami]


def test_a_failed_build_names_the_cause_and_leaves_nothing(workshop: Workshop) -> None:
    """What setup.sh says of its failure is shown, and no image is remembered."""
    done = workshop.build("--var", "python=9.9", code=1)
    assert "packer could not build the image" in done.stderr
    found = re.search(r"Its output is in (\S+)\.$", done.stderr, re.MULTILINE)
    assert found and "there is no python9.9 here" in Path(found[1]).read_text()
    assert "exit status: 1" in done.stderr or "exit code" in done.stderr
    workshop.nothing_is_left_of_building()
    assert len(workshop.images()) == 1


def test_ctrl_c_leaves_nothing(workshop: Workshop) -> None:
    """Interrupted in the middle, Packer gets one SIGINT and removes machine, key and group."""
    recipe = str(workshop.base / "small.pkrvars.hcl")
    root = workshop.base / "other-root"
    root.mkdir()
    building = workshop.bilbo.start("--local", "image", "build", recipe, "--var", f"root={root}")
    assert building.stderr
    for line in building.stderr:
        if "installing Python packages" in line:
            break
    os.killpg(building.pid, signal.SIGINT)
    os.killpg(building.pid, signal.SIGINT)  # an impatient second one does no harm
    _, said = building.communicate(timeout=60)
    assert building.returncode == 130, said
    assert "Packer has removed everything that it created" in said
    workshop.nothing_is_left_of_building()
    assert len(workshop.images()) == 1


def test_a_killed_build_is_named_with_what_it_left(workshop: Workshop) -> None:
    """bilbo and Packer are killed: `images` names what is there, until that is removed."""
    recipe = str(workshop.base / "small.pkrvars.hcl")
    running = Running(workshop.bilbo.start("--local", "image", "build", recipe))
    running.wait_for("installing Python packages")
    running.process.kill()
    running.process.wait()
    (path,) = (workshop.bilbo.home / "images" / "builds").glob("*.json")
    os.killpg(json.loads(path.read_text())["packer"][0], signal.SIGKILL)
    said = workshop.bilbo("images").stderr
    told("`kill -9` of bilbo and Packer while an image is built, as `bilbo images` tells",
         re.sub(r"\(/\S+\)", "(LOG)", re.sub("packer_[0-9a-f-]+", "packer_…", said)), 0,
         "what it names, until that is removed; after `kill -9` of bilbo alone, "
         "the image")  # fmt: skip
    ec2, _ = clients(workshop.bilbo.home)
    kinds = {
        "terminate-instances": lambda name: ec2.terminate_instances(InstanceIds=[name]),
        "delete-key-pair": lambda name: ec2.delete_key_pair(KeyName=name),
        "delete-security-group": lambda name: ec2.delete_security_group(GroupId=name),
    }
    commands = re.findall(r"^  aws ec2 (\S+) .*?(\S+) --region us-east-1 ", said, re.MULTILINE)
    assert [kind for kind, _ in commands] == [
        "terminate-instances", "wait", "delete-key-pair", "delete-security-group",
    ]  # fmt: skip
    for kind, name in commands:
        if kind in kinds:
            kinds[kind](name)
    assert "has left nothing" in workshop.bilbo("images").stderr
    assert workshop.bilbo("images").stderr == ""
    workshop.nothing_is_left_of_building()


def test_wrong_calls_are_named_before_anything_is_built(workshop: Workshop) -> None:
    """No Packer, no such recipe, a variable without a value, a profile that is none."""
    bilbo = workshop.bilbo
    missing = bilbo("--local", "image", "build", code=1, PATH="/nowhere").stderr
    assert "packer is not on PATH" in missing
    assert "https://developer.hashicorp.com/packer/install" in missing
    assert "there is no such recipe" in bilbo("image", "build", "/no/such", code=2).stderr
    assert "NAME=VALUE" in bilbo("image", "build", "--var", "python", code=2).stderr
    assert "--name" in bilbo("image", "build", "--name", "a b", code=2).stderr
    bilbo("image", "build", "--write-profile", "no.json", code=1)
    unknown = bilbo("--local", "image", "build", "--var", "no_such=1", code=1).stderr
    assert "no_such" in unknown
    workshop.nothing_is_left_of_building()


# -- a cluster from the image ------------------------------------------------------------------


def main_tf(workshop: Workshop) -> str:
    return (workshop.bilbo.home / "clusters/made/terraform/main.tf").read_text()


def test_an_unknown_image_is_named(workshop: Workshop) -> None:
    """`plan` says which image is not there, and how to build it."""
    document = workshop.profile()
    document["instance"]["image"] = "nowhere"
    profile = workshop.bilbo.profile("unknown", document)
    said = workshop.bilbo("--local", "plan", profile, code=1).stderr
    assert "there is no image 'nowhere' in us-east-1" in said
    assert "bilbo image build --name nowhere" in said


def test_hosts_that_do_not_fit_are_failed_hosts(workshop: Workshop) -> None:
    """A cluster comes up from the image by its name, pinned by id. The notebook, whose packages
    pip does not find, is named with pip's own words; a worker with another `distributed` is stopped
    before it joins; the scheduler works."""
    wrong = f"distributed @ file://{workshop.base}/wheels/distributed-2000.1-py3-none-any.whl"
    document = workshop.profile(packages=["--no-index", wrong])
    document["notebook"] = {"instance": {"packages": ["--no-index", "no-such"]}}
    profile = workshop.bilbo.profile("made", document)
    said = workshop.bilbo("--local", "create", profile, code=3).stderr
    assert main_tf(workshop).count(f'"{workshop.ami}"') == 3
    assert "failed at packages: pip ended with exit code 1" in said
    assert "No matching distribution found for no-such" in said
    assert "failed at versions: it cannot work with the head: distributed 2000.1" in said
    assert said.count(": packages installed\n") == 2
    record = workshop.bilbo.record("made")
    assert record["status"] == "partial"
    assert record["scheduler"]["image_id"] == workshop.ami
    command = "python3 -c 'import tiny_here; print(tiny_here.VERSION)'"
    assert workshop.bilbo("rcmd", "made", "scheduler", "--", command).stdout == "1.0\n"


def test_check_names_the_host_that_does_not_fit(workshop: Workshop) -> None:
    """`check` shows which host breaks by what, for people and for programs, and exits 1."""
    checked = workshop.bilbo("check", "made", code=1)
    line = r"^distributed +\S+ +2000\.1 +\[3\] worker +yes$"
    assert re.search(line, checked.stdout, re.MULTILINE)
    assert "cannot work with [2] scheduler" in checked.stderr
    document = json.loads(workshop.bilbo("check", "made", "--json", code=1).stdout)
    (found,) = [each for each in document["differences"] if each["where"] != "local"]
    assert (found["where"], found["package"]) == ("[3] worker", "distributed")
    assert (found["version"], found["breaks"]) == ("2000.1", True)


def test_the_next_create_completes_it(workshop: Workshop) -> None:
    """With notebook and worker put right, the same command makes the cluster whole, and all agree;
    what is installed already is not installed again."""
    workshop.bilbo(
        "rcmd", "made", "workers", "--", "rm -r ~/.packages/distributed-2000.1.dist-info"
    )
    profile = workshop.bilbo.profile("made", {**workshop.profile(), "notebook": {}})
    said = workshop.bilbo("create", profile).stderr
    assert said.count(": packages already installed\n") == 1
    assert workshop.bilbo.record("made")["status"] == "ready"
    assert workshop.bilbo("check", "made").stdout == "All versions match [2] scheduler.\n"


def test_a_change_of_packages_needs_no_new_image(workshop: Workshop) -> None:
    """New packages are installed on machines that stay; what runs takes them up at its restart."""
    document = {**workshop.profile(), "notebook": {}}
    install = f"tiny @ file://{workshop.base}/wheels/tiny-2.0-py3-none-any.whl"
    (workshop.bilbo.home / "profiles/later.txt").write_text(f"# later\n--no-index\n{install}\n")
    document["instance"]["packages"] = "later.txt"
    before = workshop.bilbo.record("made")["instances"]
    done = workshop.bilbo("create", workshop.bilbo.profile("made", document))
    assert done.stderr.count(": packages installed\n") == 3
    assert "restart it to use the new packages" in done.stderr
    assert workshop.bilbo.record("made")["instances"] == before
    command = "python3 -c 'import tiny_here; print(tiny_here.VERSION)'"
    said = workshop.bilbo("rcmd", "made", "all", "--", command).stdout
    assert re.findall(r"(\S+)$", said, re.MULTILINE) == ["2.0"] * 3


def test_a_different_local_environment_is_told_and_mended(workshop: Workshop) -> None:
    """`check --python` shows what differs there, what breaks, and the line that mends it."""
    environment = workshop.base / "local"
    venv.create(environment, symlinks=True)
    (site,) = environment.glob("lib/python*/site-packages")
    for name, version in (("dask", "2025.1.0"), ("distributed", "2025.1.0"), ("numpy", "2.0.0")):
        zipfile.ZipFile(wheel(workshop.base, name, version)).extractall(site)
    python = str(environment / "bin" / "python")
    done = workshop.bilbo("check", "made", "--python", python)
    assert re.search(r"^distributed +\S+ +2025\.1\.0 +local +yes$", done.stdout, re.MULTILINE)
    assert re.search(r"^cloudpickle +\S+ +not installed +local +yes$", done.stdout, re.MULTILINE)
    assert re.search(r"^dask +\S+ +2025\.1\.0 +local +no$", done.stdout, re.MULTILINE)
    (line,) = re.findall(r"^To match it: (pip install .+)$", done.stdout, re.MULTILINE)
    document = json.loads(workshop.bilbo("check", "made", "--python", python, "--json").stdout)
    assert document["local"]["executable"] == python
    assert line.split()[2:] == document["install"]
    have = document["hosts"][0]["packages"]
    assert f"distributed=={have['distributed']}" in document["install"]
    places = ["[1] notebook", "[2] scheduler", "[3] worker"]
    assert [each["where"] for each in document["hosts"]] == places


def test_a_later_build_changes_nothing_until_the_next_plan(workshop: Workshop) -> None:
    """A new image of the name leaves the rendered HCL and a restart as they are; the next plan
    takes the new id and shows what would be replaced."""
    before = main_tf(workshop)
    ami = built_without_bilbo(workshop, "--var", "extra_requirements=[]")
    first, second = workshop.images()[::-1]
    assert (first["ami"], second["ami"]) == (workshop.ami, ami)
    assert first["recipe"] != second["recipe"]
    workshop.bilbo("restart", "made")
    assert main_tf(workshop) == before
    planned = workshop.bilbo("plan", "made.json").stdout
    assert f"AMI: {ami} (image small)" in planned
    assert main_tf(workshop) == before.replace(workshop.ami, ami)


def built_without_bilbo(workshop: Workshop, *more: str) -> str:
    """The image of a build whose bilbo has lost its terminal, which ends it; `images` lists it."""
    recipe = str(workshop.base / "small.pkrvars.hcl")
    running = Running(workshop.bilbo.start("--local", "image", "build", recipe, *more))
    running.wait_for("installing Python packages")
    running.process.send_signal(signal.SIGHUP)
    running.process.wait()
    goes_on = workshop.bilbo("images").stderr
    assert "goes on without bilbo" in goes_on or "has ended without bilbo" in goes_on
    deadline = time.monotonic() + 200
    before = {each["ami"] for each in workshop.images()}
    while len(before) < 2:
        assert time.monotonic() < deadline
        before = {each["ami"] for each in workshop.images()}
    (ami,) = before - {workshop.ami}
    assert workshop.bilbo("images").stderr == ""
    return str(ami)


# -- profiles that are written into ------------------------------------------------------------

AMI = "ami-0f49fa254e1806b72"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", '{"instance": {"ami": "AMI"}}'),
        ('{"notebook": {}}', '{"instance": {"ami": "AMI"},"notebook": {}}'),
        ('{\n  "notebook": {}\n}\n', '{\n  "instance": {"ami": "AMI"},\n  "notebook": {}\n}\n'),
        ('{"instance": {}}', '{"instance": {"ami": "AMI"}}'),
        (
            '{\r\n  "instance": { // all\r\n    "ec2type": "t3.micro",\r\n  },\r\n}',
            '{\r\n  "instance": { "ami": "AMI", // all\r\n    "ec2type": "t3.micro",\r\n  },\r\n}',
        ),
        (
            '\ufeff{"instance": {"ami": "ami-1", /* x */ "tags": {"ami": "ami-2"}}}',
            '\ufeff{"instance": {"ami": "AMI", /* x */ "tags": {"ami": "ami-2"}}}',
        ),
        (
            '{"dask": {"worker": {"instance": {"ami": "ami-1"}}}, "instance": {"image": "x"}}',
            '{"dask": {"worker": {"instance": {"ami": "ami-1"}}}, "instance": {"ami": "AMI"}}',
        ),
    ],
)
def test_an_ami_is_written_into_a_profile(text: str, expected: str) -> None:
    """The id takes the place of `ami` or `image`, and all else stays, comments and ends too."""
    assert with_ami(text, AMI) == expected.replace("AMI", AMI)
