"""Reviews and bundles as data: Terraform's JSON in, what a reviewer reads out."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bilbo import bundle, plans
from bilbo.cluster.planning import Planned
from bilbo.errors import ReviewError
from bilbo.model import ClusterSpec, Machine, NodeGroup
from bilbo.plans import InstanceHours, Review, Shortage, open_to_world
from bilbo.plans.effects import effects, machines
from bilbo.plans.exposure import exposure, is_world
from bilbo.present.document import drift_document, plan_document
from bilbo.present.markdown import code, drift_markdown, plan_markdown
from bilbo.present.review_text import drift_text, hours_text, shortages_text
from bilbo.present.state_listing import state_document, state_text
from bilbo.terraform import Outcome

SCHEMA = json.loads(
    (Path(__file__).parent.parent / "schemas" / "plan-01.schema.json").read_text(encoding="utf-8")
)
MACHINE = Machine("ami-12345678", "m5.large", "key", "ubuntu", "~/key.pem")
DASK_PORTS = {8786: "Dask scheduler", 8787: "Dask dashboard"}
ACTIONS = {
    "create": ["create"],
    "update": ["update"],
    "delete": ["delete"],
    "replace": ["delete", "create"],
    "none": ["no-op"],
}


def spec(cidrs: tuple[str, ...] = ("203.0.113.0/24",), **more: Any) -> ClusterSpec:
    """A cluster of all three roles."""
    return ClusterSpec(
        name="team",
        region="us-east-1",
        engine="dask",
        notebook=NodeGroup(
            "notebook", "notebook", "team-notebook", MACHINE, ports={8888: "JupyterLab"}
        ),
        head=NodeGroup("scheduler", "scheduler", "team-dask-scheduler", MACHINE, ports=DASK_PORTS),
        workers=(NodeGroup("worker", "worker", "team-dask-worker", MACHINE, count=2),),
        cidrs=cidrs,
        **more,
    )


def resource(
    address: str, action: str, before: Any = None, after: Any = None, **more: Any
) -> dict[str, Any]:
    """One entry of `resource_changes`."""
    outer = {key: more.pop(key) for key in ("action_reason",) if key in more}
    return {
        "address": address,
        "mode": "managed",
        "type": address.split(".")[-2],
        "change": {"actions": ACTIONS[action], "before": before, "after": after, **more},
        **outer,
    }


def tagged(role: str, **values: Any) -> dict[str, Any]:
    """Values of a resource of a role."""
    return {"tags": {"bilbo:role": role, "bilbo:group": role}, **values}


def read(*changes: dict[str, Any], drift: tuple[dict[str, Any], ...] = ()) -> Review:
    """The review of these changes."""
    return plans.read({"resource_changes": list(changes), "resource_drift": list(drift)})


def markdown(found: Review, **more: Any) -> str:
    """A review as Markdown, with nothing beside it unless said."""
    settings: dict[str, Any] = {"sizes": {}, "prices": {}, "warnings": [], **more}
    return plan_markdown(spec(), found, **settings)


NOTEBOOK = "module.notebook.aws_instance.this"
GROUP = "module.worker.aws_autoscaling_group.this"
TEMPLATE = "module.worker.aws_launch_template.this"
RULES = "module.security_group.aws_security_group.this"


def test_a_replaced_notebook() -> None:
    """A replacement names the attribute that forces it, and that the files are lost."""
    found = read(
        resource(
            NOTEBOOK,
            "replace",
            tagged("notebook", ami="ami-1", instance_type="m5.large"),
            tagged("notebook", ami="ami-2", instance_type="m5.large"),
            replace_paths=[["ami"]],
        )
    )
    (effect,) = effects(found)
    assert (effect.how, effect.because) == ("replace", ("ami",))
    assert "every file on its disk" in effect.lost
    text = markdown(found)
    assert text.index("1 to add, 0 to change, 1 to destroy") < text.index("**replace**")
    assert "1 of them replaced" in text
    assert "# forces replacement" in text


def test_a_stopped_notebook() -> None:
    """A changed instance type is an update to Terraform, and a stop to whoever works there."""
    found = read(
        resource(
            NOTEBOOK,
            "update",
            tagged("notebook", instance_type="m5.large"),
            tagged("notebook", instance_type="m5.xlarge"),
        )
    )
    (effect,) = effects(found)
    assert (effect.how, effect.because) == ("stop", ("instance_type",))
    assert "files stay" in effect.lost
    assert "0 to add, 1 to change, 0 to destroy** (1 machine stopped and started" in markdown(found)


def test_workers_that_go() -> None:
    """Fewer workers are a shrink; a new template replaces them all, and the attribute is named."""
    shrink = read(
        resource(
            GROUP,
            "update",
            tagged("worker", desired_capacity=5),
            tagged("worker", desired_capacity=2),
        )
    )
    (effect,) = effects(shrink)
    assert effect.how == "shrink"
    assert effect.lost.startswith("3 worker machines")
    replaced = read(
        resource(TEMPLATE, "update", {"image_id": "ami-1"}, {"image_id": "ami-2"}),
        resource(
            GROUP,
            "replace",
            tagged("worker", desired_capacity=5),
            tagged("worker", desired_capacity=5),
            action_reason="replace_by_triggers",
        ),
    )
    (effect,) = effects(replaced)
    assert effect.because == ("aws_launch_template: image_id",)
    assert effect.lost.startswith("5 worker machines")


def test_the_worst_comes_first() -> None:
    """Destroys stand before replacements, and those before stops."""
    found = read(
        resource("module.a.aws_instance.this", "update", {"user_data": "a"}, {"user_data": "b"}),
        resource("module.b.aws_instance.this", "replace", {"ami": "a"}, {"ami": "b"}),
        resource("module.c.aws_instance.this", "delete", tagged("notebook")),
    )  # fmt: skip
    assert [effect.how for effect in effects(found)] == ["destroy", "replace", "stop"]


def test_a_stopped_machine_is_named_above_all() -> None:
    """Who replaces a machine that is only stopped loses what a start would bring back."""
    asleep = tagged("notebook", instance_state="stopped")
    found = read(
        resource("module.scheduler.aws_instance.this", "delete", tagged("scheduler")),
        resource("module.notebook.aws_instance.this", "replace", asleep, tagged("notebook")),
    )
    first, second = effects(found)
    assert "only stopped and could be started again" in first.lost
    assert "only stopped" not in second.lost


def rules(*cidrs: str, port: int = 22) -> dict[str, Any]:
    """A security group's values."""
    rule = {"from_port": port, "to_port": port, "protocol": "tcp", "cidr_blocks": list(cidrs),
            "ipv6_cidr_blocks": [], "description": "SSH"}  # fmt: skip
    return {"ingress": [rule]}


def test_who_can_reach_it() -> None:
    """Rules that open and close are named, and the internet as such."""
    found = read(
        resource(RULES, "update", rules("203.0.113.0/24"), rules("0.0.0.0/0")),
        resource(NOTEBOOK, "create", None, tagged("notebook", associate_public_ip_address=True)),
    )
    reached = exposure(found)
    assert [(rule.source, rule.public) for rule in reached.opened] == [("0.0.0.0/0", True)]
    assert [rule.source for rule in reached.closed] == ["203.0.113.0/24"]
    assert reached.public_addresses == (NOTEBOOK,)
    assert "**the whole internet**" in markdown(found)


@pytest.mark.parametrize(
    ("network", "world"),
    [("0.0.0.0/0", True), ("128.0.0.0/1", True), ("::/0", True), ("10.0.0.0/8", False),
     ("203.0.113.7/32", False), ("sg-12345678", False)],
)  # fmt: skip
def test_what_the_world_is(network: str, world: bool) -> None:
    """All of the internet is the world, and so is half of it."""
    assert is_world(network) is world


def test_ports_open_to_the_world() -> None:
    """Every port of the generated security group is named, and none of a profile's own group."""
    open_ports = open_to_world(spec(("0.0.0.0/0", "10.0.0.0/8")))
    assert [line.split()[1] for line in open_ports] == ["22", "8786", "8787", "8888"]
    assert open_to_world(spec()) == []


def test_secrets_are_taken_out() -> None:
    """What Terraform marks as sensitive is in no form of a review, though a change of it is."""
    before = tagged("notebook", user_data="old-secret", deep=[{"key": "old-secret"}])
    after = tagged("notebook", user_data="new-secret", deep=[{"key": "new-secret"}])
    marks = {"user_data": True, "deep": [{"key": True}]}
    change = resource(
        NOTEBOOK, "update", before, after, before_sensitive=marks, after_sensitive=marks
    )
    found = read(change, drift=(change,))
    document = plan_document(spec(), found, sizes={}, prices={}, warnings=[])
    for text in (
        markdown(found),
        json.dumps(document),
        drift_text("team", found, []),
        drift_markdown("team", "us-east-1", found, []),
    ):
        assert "secret" not in text
        assert "(sensitive)" in text
    assert {attribute["path"] for attribute in document["changes"][0]["attributes"]} == {
        "user_data",
        "deep[0].key",
    }


@pytest.mark.parametrize(
    "text", ["a | b", "`x`", "``` \n# Title", "<img src=x>", "‮evil", "\x1b[31m", "@team", "x" * 999]
)
def test_values_stay_values(text: str) -> None:
    """No value of a profile becomes Markdown, HTML, or another cell of the table."""
    shown = code(text)
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert "|" not in shown.replace("\\|", "")
    ticks = len(shown) - len(shown.lstrip("`"))
    assert "`" * ticks not in shown[ticks:-ticks]
    found = read(
        resource(NOTEBOOK, "create", None, tagged("notebook", evil=f"{text}\n```\n</details>"))
    )
    rendered = markdown(found)
    fence = rendered[rendered.index("diff\n") - 4 : rendered.index("diff\n")].strip("\n")
    assert rendered.count("\n</details>") == 1
    assert rendered.count(f"\n{fence}\n") == 1


def test_machines_and_prices() -> None:
    """Instance-hours are counted by type, now and then, and priced where a price is known."""
    found = read(
        resource(NOTEBOOK, "update", {"instance_type": "m5.large"}, {"instance_type": "m5.xlarge"}),
        resource(TEMPLATE, "none", {"instance_type": "t3.micro"}, {"instance_type": "t3.micro"}),
        resource(GROUP, "update", {"desired_capacity": 2}, {"desired_capacity": 4}),
    )
    counted = [(m.ec2type, m.before, m.after) for m in machines(found, {})]
    assert counted == [("m5.large", 1, 0), ("m5.xlarge", 0, 1), ("t3.micro", 2, 4)]
    assert "USD" not in markdown(found)
    priced = markdown(found, prices={"t3.micro": 0.0104, "m5.large": 0.096})
    assert "| `t3.micro` | 2 | 4 | 0.0104 | 0.0416 |" in priced
    assert "**at least 0.0416**" in priced


def test_drift_that_is_none() -> None:
    """What AWS spells otherwise is no drift; an instance that is gone is."""
    spelled = resource(GROUP, "update", {"load_balancers": None}, {"load_balancers": []})
    gone = resource(NOTEBOOK, "delete", tagged("notebook"))
    found = read(drift=(spelled, gone))
    assert [change.address for change in found.drift] == [NOTEBOOK]
    assert "| gone |" in drift_markdown("team", "us-east-1", found, [])


def test_the_documents_have_their_schema() -> None:
    """Plans and drift as JSON are what the schema describes."""
    import jsonschema  # late, as it is slow to import

    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    found = read(
        resource(NOTEBOOK, "replace", tagged("notebook", ami="a"), tagged("notebook", ami="b"),
                 replace_paths=[["ami"]], after_unknown={"id": True}),
        resource(RULES, "create", None, rules("0.0.0.0/0")),
        drift=(resource(GROUP, "update", {"desired_capacity": 2}, {"desired_capacity": 1}),),
    )  # fmt: skip
    document = plan_document(
        spec(),
        found,
        sizes={"worker": "x"},
        prices={"m5.large": 0.1},
        warnings=["w"],
        digest="d",
        shortages=[Shortage("worker", 2, 1)],
    )
    jsonschema.validate(document, SCHEMA)
    gone = {"instance_id": "i-1", "role": "worker", "state": "gone", "public_ip": ""}
    jsonschema.validate(drift_document("team", "us-east-1", found, [gone]), SCHEMA)


def test_a_long_diff_fits_a_comment() -> None:
    """A thousand resources still fit GitHub's limit, and the counts are all there."""
    changes = [
        resource(f"module.m{n}.aws_instance.this", "create", None, {"user_data": "x" * 500})
        for n in range(1000)
    ]
    text = markdown(read(*changes))
    assert len(text) < 65_000
    assert "1000 to add" in text
    assert "too long for a comment" in text


def test_nothing_to_do() -> None:
    """A plan without changes says so first, and has no diff."""
    text = markdown(read(resource(NOTEBOOK, "none", tagged("notebook"), tagged("notebook"))))
    assert "**Nothing to do.**" in text
    assert "<details>" not in text


@pytest.mark.parametrize(
    ("shortage", "does"),
    [
        (Shortage("worker", 4, 2), "has AWS launch 2"),
        (Shortage("worker", 4, 2, stopped=2), "starts 2 stopped"),
        (Shortage("worker", 4, 2, stopped=1), "starts 1 stopped and has AWS launch 1"),
    ],
)
def test_missing_workers(shortage: Shortage, does: str) -> None:
    """Workers that are missing are work to do, though Terraform has none."""
    text = markdown(read(), shortages=[shortage])
    assert "**0 to add, 0 to change, 0 to destroy**, **2 workers missing**" in text
    assert f"worker: 2 of 4 workers run; `create` {does}" in text
    assert does in shortages_text([shortage]) and not shortages_text([])
    assert Planned(spec(), Outcome(0), (), (shortage,)).has_changes


def test_the_state_for_people() -> None:
    """Resources and outputs are listed; a sensitive output is not."""
    document = state_document(
        "/folder",
        {
            "serial": 3,
            "resources": [
                {"mode": "managed", "module": "module.a", "type": "aws_instance", "name": "this",
                 "instances": [{"attributes": {"id": "i-1"}}]},
                {"mode": "data", "type": "aws_subnets", "name": "this", "instances": [{}]},
            ],
            "outputs": {"a": {"value": 1}, "b": {"value": "secret", "sensitive": True}},
        },
    )  # fmt: skip
    text = state_text(document)
    assert "module.a.aws_instance.this  i-1" in text
    assert "a = 1" in text
    assert "secret" not in text


# -- bundles --------------------------------------------------------------------------------

MANIFEST = bundle.Manifest("team", "us-east-1", "0" * 64, versions={"bilbo": "1"}, serial=4)
CONTENTS = {
    bundle.PLAN: b"plan",
    "terraform/main.tf": b"# main\n",
    "terraform/.terraform.lock.hcl": b"",
}


def test_a_bundle_is_the_same_anywhere(tmp_path: Path) -> None:
    """The same content is the same bytes, private, and read back as it was."""
    one, two = tmp_path / "one", tmp_path / "sub" / "two"
    digest = bundle.write(one, MANIFEST, CONTENTS)
    assert bundle.write(two, MANIFEST, dict(reversed(CONTENTS.items()))) == digest
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_mode & 0o777 == 0o600
    found = bundle.read(one)
    assert found.digest == digest
    assert found.contents == CONTENTS
    assert found.manifest.serial == 4
    assert found.hcl == {"main.tf": "# main\n", ".terraform.lock.hcl": ""}


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    """A bundle with any one byte changed, or cut short anywhere, is refused, or reads the same."""
    path, changed = tmp_path / "plan", tmp_path / "changed"
    bundle.write(path, MANIFEST, CONTENTS)
    data, whole = path.read_bytes(), bundle.read(path)
    for at in range(len(data)):
        for other in (data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :], data[:at]):
            changed.write_bytes(other)
            try:
                assert bundle.read(changed) == whole  # a time or a mode of the zip's own
            except ReviewError:
                continue


@pytest.mark.parametrize("name", ["../x", "terraform/../../x", "/x", "terraform/a/../x", "other"])
def test_a_bundle_holds_no_paths_of_others(tmp_path: Path, name: str) -> None:
    """A file in a bundle can only be one of the Terraform folder's."""
    path = tmp_path / "plan"
    bundle.write(path, MANIFEST, CONTENTS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(ReviewError):
        bundle.read(path)


def test_a_plan_file_that_is_none(tmp_path: Path) -> None:
    """Terraform's own plan, a folder and nothing are named as no bundle."""
    (tmp_path / "text").write_text("plan", encoding="utf-8")
    for path in (tmp_path / "text", tmp_path, tmp_path / "none"):
        with pytest.raises(ReviewError):
            bundle.read(path)


def test_a_profiles_digest() -> None:
    """The digest is of the values: the order and the layout of a file do not matter."""
    assert bundle.profile_digest({"a": 1, "b": 2}) == bundle.profile_digest({"b": 2, "a": 1})
    assert bundle.profile_digest({"a": 1}) != bundle.profile_digest({"a": 2})


def test_prices_in_the_text() -> None:
    """The text of a plan has the prices, too; a type without one makes the sum a least."""
    found = [InstanceHours("t3.micro", 1, 3, 0.01), InstanceHours("m5.large", 0, 1)]
    text = hours_text(found)
    assert "t3.micro: 1 -> 3, 0.0300 USD per hour" in text
    assert text.endswith("then at least 0.0300 USD per hour")
    assert hours_text([]) == ""


def test_what_bilbo_tends_is_no_drift() -> None:
    """What a worker group may do by itself changes as bilbo works: neither drift nor digests have
    it, and what else changes there counts."""
    group = "aws_autoscaling_group"

    def drifted(**after: Any) -> dict[str, Any]:
        change = {"actions": ["update"], "before": {"suspended_processes": [], "max_size": 2}}
        change["after"] = {**change["before"], **after}  # type: ignore[dict-item]
        found = {"address": f"{group}.this", "mode": "managed", "type": group, "change": change}
        return {"resource_drift": [found]}

    tended = drifted(suspended_processes=["Launch"])
    assert plans.read(tended).drift == () and plans.drift_digests(tended) == {}
    grown = drifted(suspended_processes=["Launch"], max_size=3)
    (change,) = plans.read(grown).drift
    assert [each.path for each in change.attributes] == ["max_size"]
    assert plans.drift_digests(grown) == plans.drift_digests(drifted(max_size=3)) != {}
