"""The Packer template, the setup script, and how bilbo reads Packer; what needs no stand-in."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from wheels import wheel

from bilbo import images
from bilbo.engines.dask import DASK
from bilbo.errors import PackerError, UsageError
from bilbo.images import Event
from bilbo.images.packer import arguments, binary, environment
from bilbo.images.packer_output import built, parse
from bilbo.model import Target
from bilbo.resources import folder

PACKER = folder("packer")
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def packer(*arguments: str, cwd: Path = PACKER) -> subprocess.CompletedProcess[str]:
    around = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    around |= {"CHECKPOINT_DISABLE": "1", "AWS_DEFAULT_REGION": "us-east-1"}
    return subprocess.run(
        ["packer", *arguments], cwd=cwd, env=around, capture_output=True, text=True, check=False
    )


# -- the template ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["base=cuda", "instance_type=g4dn.xlarge"],
        ["base=ami-0f49fa254e1806b72", "disk_size=40", "ssh_username=admin"],
        ["architecture=arm64", "instance_type=t4g.large", "region=eu-west-1", "name=arm"],
        ["base=ami-1", "root_device=/dev/xvda", "subnet=subnet-1", "encrypted=false"],
        ['extra_packages=["htop", "tree"]', 'extra_requirements=["geopandas>=1"]'],
    ],
)
def test_the_template_is_valid_with_every_base(values: list[str]) -> None:
    """Packer alone takes the template, for each kind of base."""
    options = [word for each in values for word in ("-var", each)]
    done = packer("validate", *options, ".")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("region", "owner"),
    [
        ("eu-west-1", "099720109477"),
        ("cn-north-1", "837727238323"),
        ("us-gov-west-1", "513442679011"),
    ],
)
def test_canonicals_account_of_each_partition(region: str, owner: str) -> None:
    """Ubuntu is looked for where Canonical publishes it."""
    done = subprocess.run(
        ["packer", "console", "-config-type=hcl2", "-var", f"region={region}", "."],
        cwd=PACKER,
        input="local.bases.ubuntu.owner\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == owner, done.stderr


def test_the_template_can_be_called_from_elsewhere() -> None:
    """Its files are found from any folder, by a relative or a full path."""
    for cwd, place in ((PACKER.parent, PACKER.name), (Path("/"), str(PACKER))):
        done = packer("validate", place, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_template_is_formatted() -> None:
    """`packer fmt` would change nothing."""
    done = packer("fmt", "-check", "-diff", ".")
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip() == ""


def test_every_variable_is_described_and_used() -> None:
    """No variable is there in vain."""
    declared = (PACKER / "variables.pkr.hcl").read_text()
    template = (PACKER / "image.pkr.hcl").read_text()
    names = re.findall(r'^variable "(\w+)"', declared, re.MULTILINE)
    assert len(re.findall(r"^  description = \"", declared, re.MULTILINE)) == len(names)
    assert all(re.search(rf"\bvar\.{name}\b", template) for name in names)
    assert "sleep" not in template


def test_every_requirement_is_pinned() -> None:
    """What is asked for is pinned with all that it needs, names no index, and is tagged."""
    asked = re.findall(r"^([a-z0-9-]+)", (PACKER / "requirements.in").read_text(), re.MULTILINE)
    lines = (PACKER / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert "make requirements" in lines[1]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", pin) for pin in pins)
    pinned = {pin.split("==")[0] for pin in pins}
    assert set(asked) <= pinned
    assert set(DASK.packages) <= pinned
    told = re.search(r"told = \[(.+?)\]", (PACKER / "image.pkr.hcl").read_text(), re.DOTALL)
    assert told and set(re.findall(r'"(\w+)"', told[1])) == set(DASK.packages)


# -- the setup script ----------------------------------------------------------------------


def test_the_setup_script_is_clean() -> None:
    """ShellCheck finds nothing, optional checks included."""
    options = ["--enable=all", "--exclude=SC2250,SC2292,SC2310,SC2312"]  # matters of taste
    done = subprocess.run(
        ["shellcheck", *options, str(PACKER / "setup.sh")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@dataclass(frozen=True)
class Root:
    """A folder that setup.sh takes for the root, and what it is given."""

    path: Path
    requirements: Path

    @property
    def bin(self) -> Path:
        return self.path / "opt" / "bilbo" / "venv" / "bin"

    def setup(self, **around: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "BILBO_ROOT": str(self.path),
            "BILBO_PYTHON": PYTHON,
            "BILBO_REQUIREMENTS": str(self.requirements),
            "PIP_TARGET": "/nowhere",
            "PYTHONPATH": "/nowhere",
            **around,
        }
        return subprocess.run(
            ["bash", str(PACKER / "setup.sh")],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A throw-away root on which setup.sh has run, with a small set."""
    base = tmp_path_factory.mktemp("root")
    wheels = base / "wheels"
    wheels.mkdir()
    says = {"dask_says.py": "def main():\n    print('dask of the image')\n"}
    wheel(wheels, "dask", "2026.8.0", says, "dask = dask_says:main")
    wheel(wheels, "extra", "1.0")
    wheel(wheels, "dask", "1.0")
    requirements = base / "requirements.txt"
    requirements.write_text(f"--no-index\n--find-links {wheels}\ndask==2026.8.0\n")
    place = Root(base / "root", requirements)
    (place.path / "etc").mkdir(parents=True)
    (place.path / "etc" / "environment").write_text('LANG="C.UTF-8"\nPATH="/usr/bin:/bin"\n')
    done = place.setup(BILBO_EXTRA="extra\n# no more")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no packages of the system: apt cannot install into" in done.stdout
    return place


@pytest.mark.programs
def test_setup_installs_and_can_be_repeated(root: Root) -> None:
    """The packages and the extra ones are there; a second run changes nothing."""
    versions = root.path / "opt" / "bilbo" / "versions.txt"
    assert "dask==2026.8.0" in versions.read_text()
    assert "extra==1.0" in versions.read_text()
    environment = (root.path / "etc" / "environment").read_text()
    assert environment == f'LANG="C.UTF-8"\nPATH="{root.bin}:/usr/bin:/bin"\n'
    assert root.setup(BILBO_EXTRA="extra").returncode == 0
    assert (root.path / "etc" / "environment").read_text() == environment


@pytest.mark.programs
@pytest.mark.parametrize(
    ("around", "said"),
    [
        ({"BILBO_EXTRA": "dask==1.0"}, "dask==2026.8.0"),
        ({"BILBO_PYTHON": "9.9"}, "there is no python9.9 here"),
        ({"BILBO_REQUIREMENTS": "/no/such/file"}, "/no/such/file"),
    ],
)
def test_setup_fails_loudly(root: Root, around: dict[str, str], said: str) -> None:
    """An extra that contradicts the pins, a missing Python and a missing file end the build."""
    done = root.setup(**around)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or ""


def may_mount() -> bool:
    """Whether a mount namespace of our own can be had."""
    return (
        os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def login(root: Root, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """OpenSSH with PAM, which sees the root's /etc/environment and /etc/profile.d."""
    assert SSHD, "tests/system-packages installs OpenSSH's server"
    if not may_mount():
        pytest.skip("only root may mount the image's files over this machine's")
    keys = tmp_path_factory.mktemp("keys")
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(command, check=True)
    etc = root.path / "etc"
    settings = {
        "Port": "22",
        "ListenAddress": "127.83.22.5",
        "HostKey": str(keys / "host"),
        "AuthorizedKeysFile": str(keys / "user.pub"),
        "PidFile": "none",
        "UsePAM": "yes",
        "StrictModes": "no",
        "PermitRootLogin": "yes",
    }
    options = " ".join(f"-o {name}={shlex.quote(value)}" for name, value in settings.items())
    mounts = f"mkdir -p /run/sshd; mount --bind {etc}/environment /etc/environment"
    mounts += (
        f"; mount --bind {etc}/profile.d /etc/profile.d; exec {SSHD} -D -e -f /dev/null {options}"
    )
    server = subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "bash", "-c", mounts],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    unknown = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    place = ["-i", str(keys / "user"), "-o", "IdentitiesOnly=yes", "root@127.83.22.5"]
    ssh = ["ssh", "-q", "-F", "none", *unknown, *place]
    try:
        deadline = time.monotonic() + 15
        while subprocess.run([*ssh, "true"], check=False).returncode:
            assert server.poll() is None, server.stderr.read() if server.stderr else ""
            assert time.monotonic() < deadline, "sshd does not let us in"
            time.sleep(0.2)
        yield ssh
    finally:
        server.terminate()
        server.wait()


@pytest.mark.programs
@pytest.mark.parametrize("command", ["dask", "bash -lc dask", "bash -c dask", "sh -lc dask"])
def test_a_session_finds_the_programs(login: list[str], command: str) -> None:
    """Login shell or not, a command over a real sshd finds the image's programs first."""
    done = subprocess.run(
        [*login, command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.stdout == "dask of the image\n", done.stderr


# -- what Packer says, and what it is told ---------------------------------------------------


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "1795337367,,ui,say,==> amazon-ebs.image: Prevalidating AMI Name: x",
            Event("say", "Prevalidating AMI Name: x"),
        ),
        (
            "1795337383,,ui,say,==> amazon-ebs.image: No volumes%!(PACKER_COMMA) skipping",
            Event("say", "No volumes, skipping"),
        ),
        (
            "1795337368,,ui,message,    amazon-ebs.image: bilbo: installing",
            Event("message", "bilbo: installing"),
        ),
        (
            "1,,ui,error,==> amazon-ebs.image: no\\nmore",
            Event("error", "no\nmore"),
        ),
        (
            "1,amazon-ebs.image,artifact,0,id,us-east-1:ami-2626988cf8c00044d",
            Event("artifact", "us-east-1:ami-2626988cf8c00044d"),
        ),
        ("1,amazon-ebs.image,artifact,0,files-count,0", None),
        ("1,,ui,say,\\n==> Builds finished. The artifacts of successful builds are:", None),
        ("1,,ui,say,Build 'amazon-ebs.image' finished after 15 seconds.", None),
        ("1,,ui", None),
        ("panic: runtime error, at line 3,4", None),
        ("", None),
    ],
)
def test_packers_lines_are_read(line: str, event: Event | None) -> None:
    """Steps, messages, errors and artifacts are told apart; escapes are undone."""
    assert parse(line) == event
    assert parse(line + "\r\n") == event


def test_the_ami_is_taken_from_the_artifact() -> None:
    """Only an artifact that is an AMI counts as built."""
    assert built([]) is None
    assert built([Event("say", "us-east-1:ami-1"), Event("artifact", "Null")]) is None
    made = [Event("artifact", "eu-west-1:ami-0f49fa254e1806b72")]
    assert built(made) == ("eu-west-1", "ami-0f49fa254e1806b72")


def test_recipes_and_their_arguments(tmp_path: Path) -> None:
    """Own template, a file of values, a folder: what Packer is told, in the order that decides."""
    own = images.read_recipe(None)
    assert arguments(own, {}, []) == ["build", "-machine-readable", str(PACKER)]
    values = tmp_path / "x.pkrvars.hcl"
    values.write_text("")
    preset = {"region": "eu-west-1", "no_such_variable": "1"}
    assert arguments(images.read_recipe(str(values)), preset, ["name=x"]) == [
        *("build", "-machine-readable", "-var", "region=eu-west-1"),
        *(f"-var-file={values}", "-var", "name=x", str(PACKER)),
    ]
    assert images.read_recipe(str(values)).cwd == tmp_path
    template = tmp_path / "t"
    template.mkdir()
    with pytest.raises(UsageError, match="has no Packer template"):
        images.read_recipe(str(template))
    (template / "a.pkr.hcl").write_text('variable "name" {}\n')
    found = images.read_recipe(str(template))
    assert (found.template, found.cwd, found.variables) == (template, template, frozenset({"name"}))
    assert arguments(found, preset, []) == ["build", "-machine-readable", str(template)]
    (tmp_path / "x.json").write_text("{}")
    for wrong in ("x.json", "no-such"):
        with pytest.raises(UsageError):
            images.read_recipe(str(tmp_path / wrong))


def test_packers_environment() -> None:
    """No stray setting of Packer's, and an empty value of the target's removes the caller's."""
    around = environment({"PACKER_LOG": "1", "AWS_PROFILE": "mine", "A": ""}, {"AWS_PROFILE": ""})
    assert around == {"A": "", "CHECKPOINT_DISABLE": "1", "PACKER_NO_COLOR": "1"}
    with pytest.raises(PackerError, match="not on PATH") as caught:
        binary({"PATH": "/nowhere"})
    assert "https://developer.hashicorp.com/packer/install" in caught.value.hint


def test_a_current_packer_gets_its_plugins_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 1.7 on, `packer init` runs on the folder that names the plugins; before, it does not."""
    log = tmp_path / "called"
    program = tmp_path / "packer"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for version, expected in (
        ("1.6.6", ["version", "build"]),
        ("1.15.0", ["version", f"init {PACKER / 'plugins'}", "build"]),
    ):
        program.write_text(
            f'#!/bin/sh\necho "$@" >>{log}\n[ "$1" != version ] || echo "Packer v{version}"\n'
            'if [ "$1" = build ]; then echo 1,x,artifact,0,id,r:ami-1; fi\n'
        )
        program.chmod(0o755)
        log.write_text("")
        recipe = images.read_recipe(None)
        made = images.build(
            recipe, {}, [], extra={}, log=tmp_path / "log", on_event=lambda event: None
        )
        assert made == ("r", "ami-1")
        called = [re.sub("^build .*", "build", line) for line in log.read_text().splitlines()]
        assert called == expected


def fake_packer(folder: Path, monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    """A Packer of 1.6 that does `build` when it is to build."""
    program = folder / "packer"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = version ]; then echo "Packer v1.6.6"; exit; fi\n{build}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_packer_with_plugins_requires_imdsv2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It builds from a copy of the template with the block that Packer 1.6 rejects, and nothing
    else of which it rejects."""
    program = tmp_path / "packer"
    program.write_text(
        '#!/bin/sh\ncase "$1" in version) echo "Packer v1.15.0";; build)\n'
        f'for each; do :; done; echo "$each" >{tmp_path}/built\n'
        "echo 1,x,artifact,0,id,r:ami-1;; esac\n"
    )
    program.chmod(0o755)
    real = shutil.which("packer")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    strict = tmp_path / "strict"
    images.build(
        images.read_recipe(None), {}, [], extra={}, log=tmp_path / "log", strict=strict,
        on_event=lambda event: None,
    )  # fmt: skip
    assert (tmp_path / "built").read_text() == f"{strict}\n"
    ours, theirs = ((each / "image.pkr.hcl").read_text() for each in (PACKER, strict))
    added = set(theirs.splitlines()) - set(ours.splitlines())
    assert {line.strip() for line in added} >= {"metadata_options {", 'http_tokens   = "required"'}
    assert (strict / "setup.sh").read_text() == (PACKER / "setup.sh").read_text()
    done = subprocess.run([str(real), "validate", str(strict)], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.stdout.count("Error: ") == 1 and '"metadata_options"' in done.stdout


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("us-gov-west-1", "https://checkip.amazonaws.com"),
        ("cn-north-1", "https://checkip.amazonaws.com.cn"),
    ],
)
def test_each_partition_tells_the_callers_address(region: str, url: str) -> None:
    """China's regions have a service of their own."""
    assert Target(region).check_ip_url == url


def test_what_a_recipe_sets(tmp_path: Path) -> None:
    """The region of a build may be in its file of values, as HCL or as JSON."""
    for name, text in (
        ("a.pkrvars.hcl", 'name = "x"\nregion = "eu-west-1"\n'),
        ("a.pkrvars.json", '{"name": "x",\n "region": "eu-west-1"}'),
    ):
        (tmp_path / name).write_text(text)
        found = images.read_recipe(str(tmp_path / name))
        assert found.set_in_values("region") == "eu-west-1"
        assert found.set_in_values("subnet") == ""


def test_a_killed_packer_is_not_said_to_have_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what may be left, and how to find it."""
    fake_packer(tmp_path, monkeypatch, "kill -9 $$")
    with pytest.raises(PackerError) as caught:
        recipe = images.read_recipe(None)
        images.build(recipe, {}, [], extra={}, log=tmp_path / "log", on_event=lambda event: None)
    assert isinstance(caught.value, images.PackerKilled)
    assert "may have left a machine" in caught.value.hint
    assert "has removed" not in caught.value.hint
