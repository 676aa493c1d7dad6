"""Specifications become HCL: exactly the text expected, clean, valid, and the same each time."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from strategies import valid_profiles

from bilbo.errors import RenderError
from bilbo.model import ClusterSpec
from bilbo.profile import building
from bilbo.render import attributes, hcl, hcl_string, render
from bilbo.terraform.environment import binary

CASES = Path(__file__).parent / "rendered"
EXAMPLES = Path(__file__).parent.parent / "examples"


def spec_of(document: dict[str, Any], name: str = "test") -> ClusterSpec:
    """The specification of a profile whose caller has one address."""
    from dataclasses import replace

    spec = building.build(document, name, "us-east-1")
    spec = replace(spec, root_devices={each.machine.ami: "/dev/sda1" for each in spec.workers})
    return spec if spec.cidrs else replace(spec, cidrs=("192.0.2.1/32",))


@pytest.mark.parametrize("case", sorted(path.stem for path in CASES.glob("*.json")))
def test_a_profile_becomes_this_hcl(case: str) -> None:
    """The root module of each case is the text that lies beside it."""
    document = json.loads((CASES / f"{case}.json").read_text(encoding="utf-8"))
    text = render(spec_of(document))["main.tf"]
    expected = CASES / f"{case}.tf"
    if os.environ.get("BILBO_WRITE_DOCS"):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")


def test_a_root_device_that_nobody_knows_is_a_variable() -> None:
    """Terraform then plans nothing before it is told, and no wrong disk is made."""
    from dataclasses import replace

    spec = spec_of(json.loads((CASES / "workers.json").read_text(encoding="utf-8")))
    text = render(replace(spec, root_devices={}))["main.tf"]
    assert text.count('variable "root_devices" {') == 1
    ami = spec.workers[0].machine.ami
    assert f'  root_device        = var.root_devices["{ami}"]\n' in text
    assert "root_devices" not in render(spec)["main.tf"]


def test_two_more_workers_are_one_line() -> None:
    """A change of the count is a change of one line in the rendered folder."""
    document = json.loads((CASES / "workers.json").read_text(encoding="utf-8"))
    before = render(spec_of(document))
    document["dask"]["worker"]["count"] += 2
    after = render(spec_of(document))
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"main.tf"}
    pairs = zip(before["main.tf"].splitlines(), after["main.tf"].splitlines(), strict=True)
    assert [old.strip() for old, new in pairs if old != new] == ["instance_count     = 2"]


def test_whose_it_is_stands_on_everything() -> None:
    """With an owner each resource's tags have it, workers are looked for by it, and the state
    keeps it; without one there is no trace of any."""
    from dataclasses import replace

    spec = spec_of(json.loads((CASES / "everything.json").read_text(encoding="utf-8")))
    owned = render(replace(spec, owner="0123456789abcdef"))["main.tf"]
    modules = owned.count('source = "./modules/') - owned.count('source = "./modules/network"')
    assert owned.count('    "bilbo:owner"   = "0123456789abcdef"\n') == modules
    assert 'output "owner" {' in owned
    assert "owner" not in render(spec)["main.tf"]


def test_what_hcl_cannot_hold_is_refused() -> None:
    """NUL, lone surrogates and what is no JSON value raise RenderError."""
    for wrong in ("a\0b", "\ud800"):
        with pytest.raises(RenderError):
            hcl_string(wrong)
    with pytest.raises(RenderError):
        hcl({1, 2})


def test_keys_align_by_what_terraform_counts(tmp_path: Path) -> None:
    """Characters of several code points, or of none to see, are escaped in keys, and come back."""
    keys = ["a", "x\u0301", "\ufeff", "\U0001f468\u200d\U0001f469", "\u1100", "클러스터", "ö"]
    text = "locals {\n" + attributes({"tags": dict.fromkeys(keys, "x")}).lstrip("\n") + "\n}\n"
    (tmp_path / "main.tf").write_text(text, encoding="utf-8")
    assert '"클러스터" ' in text and '"ö" ' in text and "\\ufeff" in text
    terraform = binary(dict(os.environ))
    done = subprocess.run(
        [terraform, "fmt", "-check", "-diff", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    asked = subprocess.run(
        [terraform, f"-chdir={tmp_path}", "console"], input="jsonencode(keys(local.tags))",
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert sorted(json.loads(json.loads(asked))) == sorted(keys)


def test_a_security_group_without_addresses_is_refused() -> None:
    """The generated security group never admits nobody or everybody by default."""
    spec = building.build(json.loads((CASES / "notebook.json").read_text()), "test", "us-east-1")
    with pytest.raises(RenderError, match="no network to allow"):
        render(spec)


def test_rendered_folders_are_clean_and_the_same(tmp_path: Path) -> None:
    """`terraform fmt` has nothing to change in a hundred rendered profiles and the modules."""
    count = 0

    @seed(1)
    @settings(
        max_examples=100, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(valid_profiles())
    def write(document: dict[str, Any]) -> None:
        nonlocal count
        spec = spec_of(document)
        assert render(spec) == render(spec)
        (tmp_path / f"{count}.tf").write_text(render(spec)["main.tf"], encoding="utf-8")
        count += 1

    write()
    terraform = binary(dict(os.environ))
    for folder in (tmp_path, EXAMPLES.parent / "templates" / "terraform"):
        done = subprocess.run(
            [terraform, "fmt", "-check", "-diff", "-recursive", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
