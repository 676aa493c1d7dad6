"""Prices: what AWS's list tells, what is stored, and what a specification costs by the hour."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import Bilbo

from bilbo.aws.price_list import DISKS, MACHINES, by_type, one, suits
from bilbo.cluster.budget import check_budget
from bilbo.cluster.price_refresh import Priced
from bilbo.cluster.work import Work
from bilbo.costs import Bill, Hourly, Kept, bill, growing, hourly, of_inventory, of_spec
from bilbo.errors import BilboError, RecordError
from bilbo.local import pricing_api
from bilbo.model import ClusterSpec, Inventory, Node, Target
from bilbo.present.cost_text import bill_document, bill_line, bill_text, over_budget
from bilbo.prices import Prices, load, parsed, path_of, save, usable
from bilbo.profile import building
from bilbo.record import Record, Store, now

PRICES = Prices(
    "us-east-1", "2026-03-01T00:00:00+00:00", {"t3.micro": 0.01, "m5.large": 0.1}, {}, 0.073, 0.005
)
INSTANCE = {
    "ami": "ami-0f49fa254e1806b72", "ec2type": "t3.micro", "keyname": "k", "ssh_user": "ubuntu",
    "ssh_private_key": "~/key.pem",
}  # fmt: skip


def spec(count: int = 2, **more: Any) -> ClusterSpec:
    """A notebook of 10 GiB, a scheduler and workers of an AMI's own size."""
    document = {
        "instance": INSTANCE,
        "notebook": {"instance": {"vol_size": 10}},
        "dask": {"worker": {"count": count, "instance": {"ec2type": "m5.large"}}},
        **more,
    }
    return building.build(document, "one", "us-east-1")


def about(usd: float) -> Any:
    """A sum of US dollars that floating point may have rounded."""
    return pytest.approx(usd)


def listed(**filters: str) -> list[dict[str, Any]]:
    """What the stand-in's list answers a question with these filters; one page."""
    asked = {
        "ServiceCode": "AmazonEC2",
        "Filters": [{"Field": name, "Value": value} for name, value in filters.items()],
    }
    status, found = pricing_api.answer("pricing:GetProducts", json.dumps(asked))
    assert status == "200 OK"
    return [json.loads(text) for text in found["PriceList"]]


def test_only_ordinary_machines_count() -> None:
    """Of Linux, Windows, dedicated hosts, reserved capacity and zeros, the one ordinary price is
    taken, also where the list filters nothing."""
    mixed = listed(instanceType="t3.micro")
    assert len(mixed) > 5
    assert by_type(mixed) == {}  # several prices: none of them is believed
    assert by_type([each for each in mixed if suits(each, MACHINES)]) == {"t3.micro": 0.0104}
    assert (
        one([each for each in listed(productFamily="Storage") if suits(each, DISKS)], "GB-Mo")
        == 0.08
    )
    assert one([], "Hrs") is None


@pytest.mark.parametrize("price", [0, 0.0, "0.0000000000", -1, "x", None, float("nan"), 1e300, []])
def test_a_price_that_cannot_be_one_is_unknown(price: Any) -> None:
    """A 0 of the list, as of what is not sold, never becomes a price."""
    assert usable(price) is None
    assert parsed({"version": 1, "region": "r", "date": "d", "machines": {}}).machines == {}


def test_they_are_kept_with_their_date(tmp_path: Path) -> None:
    """Readable by the owner alone; a damaged file, or another region's, is no prices."""
    assert load(tmp_path, "us-east-1") == Prices("us-east-1")
    save(tmp_path, PRICES)
    path = path_of(tmp_path, "us-east-1")
    assert path and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(tmp_path, "us-east-1") == PRICES
    path.with_name("eu-west-1.json").write_bytes(path.read_bytes())
    assert load(tmp_path, "eu-west-1") == Prices("eu-west-1")
    for text in ("", "[]", '{"version": 1, "region": 1, "date": ""}', "[" * 10_000):
        path.write_text(text)
        assert load(tmp_path, "us-east-1") == Prices("us-east-1")
    with pytest.raises(RecordError, match="another bilbo"):
        parsed({"version": 2, "region": "r", "date": "d"})
    assert path_of(tmp_path, "../../x") is None


def test_they_are_old_after_thirty_days() -> None:
    """Then bilbo asks again; also where nobody has asked, or the date is none."""
    asked = datetime.fromisoformat(PRICES.date)
    assert not PRICES.old(asked + timedelta(days=29))
    assert PRICES.old(asked + timedelta(days=31))
    assert Prices().old()
    assert Prices(date="2026-03-01T00:00:00").old(datetime.now(timezone.utc))


def test_what_a_machine_costs() -> None:
    """Machine, address and disk; stopped, its disk alone; what is unknown is named, and not 0."""
    running = hourly(Kept("notebook", "notebook", "t3.micro", 2, 10), PRICES)
    assert running == Hourly(about(2 * (0.01 + 0.005 + 0.001)))
    assert running.month == pytest.approx(730 * running.usd)
    stopped = hourly(Kept("notebook", "notebook", "t3.micro", 1, 10, runs=False), PRICES)
    assert stopped == Hourly(about(0.001))
    assert hourly(Kept("worker", "gpu", "g3s.xlarge", 1), PRICES).unknown == ("disks", "g3s.xlarge")
    assert hourly(Kept("worker", "gpu", "g3s.xlarge", 0), PRICES) == Hourly()


def test_what_a_group_of_several_types_costs() -> None:
    """At most the dearest one's price, which is unknown if one of them is."""
    mixed = Kept("worker", "worker", "t3.micro", 1, 10, others=("m5.large",))
    assert hourly(mixed, PRICES) == Hourly(about(0.1 + 0.005 + 0.001))
    assert hourly(replace(mixed, others=("x1.large",)), PRICES).unknown == ("x1.large",)
    assert growing([Kept("worker", "worker", "m5.large", 1)], [mixed]) == []


def node(number: int, group: str, ec2type: str) -> Node:
    """A machine of a record."""
    return Node(group, group, f"i-{number}", "", "", "", ec2type, "ami-1", "k", "u", "~/k")


def test_now_and_then() -> None:
    """A bill has each group now, by the record, and then, by the profile."""
    there = Inventory(
        node(1, "notebook", "t3.micro"),
        node(2, "scheduler", "t3.micro"),
        (node(3, "worker", "m5.large"),),
    )
    sizes = {"worker": 20.0, "scheduler": 10.0, "i-1": 10.0}
    now, then = of_inventory(there, sizes), of_spec(spec(3), sizes)
    assert [each.group for each in growing(now, then)] == ["worker"]
    found = bill(now, then, PRICES)
    assert found.now["notebook"] == found.then["notebook"]
    assert found.then["worker"].usd == pytest.approx(3 * found.now["worker"].usd)
    line = bill_line(found, "us-east-1")
    assert line == "Costs 0.3530 USD per hour, 257.69 per month; now 0.1390 and 101.47."
    assert "  worker: 0.1070 -> 0.3210" in bill_text(found, "us-east-1")
    assert bill_document(found)["then"]["usd_per_month"] == pytest.approx(257.69)
    paused = bill(of_inventory(there, sizes, runs=False), then, PRICES)
    assert paused.total_now.usd == pytest.approx(0.004)


def test_an_unknown_price_is_said() -> None:
    """A sum without it is told as the least that it can be, and with no price at all as unknown."""
    found = bill([], of_spec(spec(1), {}), PRICES)
    assert bill_line(found, "us-east-1").startswith("Costs at least 0.1")
    assert bill_line(found, "us-east-1").endswith("(no price known for disks).")
    nothing = bill_line(bill([], of_spec(spec(), {}), Prices()), "eu-west-1")
    assert "is unknown" in nothing
    assert "bilbo prices update --region eu-west-1" in nothing


def test_a_budget_in_words() -> None:
    """A plan says by how much it is over; a change that makes the cluster cheaper is allowed."""
    dear, cheap = Bill(then={"a": Hourly(6.0)}), Bill({"a": Hourly(7.0)}, {"a": Hourly(6.0)})
    assert "1.0000 USD per hour over the budget of 5.0000" in over_budget(dear, 5.0)
    assert over_budget(cheap, 5.0) == over_budget(dear, None) == over_budget(dear, 6.0) == ""
    assert "no known price" in over_budget(Bill(then={"a": Hourly(1.0, ("x",))}), 5.0)


def test_the_profiles_key() -> None:
    """`budget` is a number of US dollars per hour."""
    assert spec(budget={"usd_per_hour": 5}).budget == 5
    assert spec().budget is None


# -- budgets -------------------------------------------------------------------------------


class Silent:
    """Nobody is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Keeps it."""
        self.said.append(text)


def budgeted(home: Path, count: int, budget: float | None, **kinds: str) -> tuple[Any, ClusterSpec]:
    """What an operation needs, with PRICES of today stored, and a profile of so many workers with a
    budget. All disks have 10 GiB, so that nobody is asked."""
    save(home, replace(PRICES, date=now()))
    instance = {**INSTANCE, "vol_size": 10, **kinds}
    document: dict[str, Any] = {"instance": instance, "dask": {"worker": {"count": count}}}
    if budget is not None:
        document["budget"] = {"usd_per_hour": budget}
    nowhere = Target("us-east-1", "http://127.0.0.1:1", {})
    return Work(Store(home), nowhere, Silent()), building.build(document, "one", "us-east-1")  # type: ignore[arg-type]


def recorded(spec: ClusterSpec, workers: int) -> Record:
    """The record of a scheduler and so many workers."""
    nodes = tuple(node(n, "worker", "t3.micro") for n in range(workers))
    inventory = Inventory(head=node(99, "scheduler", "t3.micro"), workers=nodes)
    return Record("one", "ready", "us-east-1", "dask", now(), spec.profile, "", inventory=inventory)


def test_a_budget_is_kept(tmp_path: Path) -> None:
    """What is over it is refused with the sum and by how much; what is within passes, and says what
    it costs once it begins."""
    work, spec = budgeted(tmp_path, 2, 0.05)
    check_budget(spec, work)()
    assert work.progress.said == ["Costs 0.0480 USD per hour, 35.04 per month."]
    work, spec = budgeted(tmp_path, 3, 0.05)
    with pytest.raises(BilboError, match=r"would cost 0.0640 USD per hour, 0.0140 more"):
        check_budget(spec, work)
    work, spec = budgeted(tmp_path, 3, None)
    check_budget(spec, work)


def test_a_budget_lets_a_cluster_shrink(tmp_path: Path) -> None:
    """A change that makes the cluster cheaper is allowed, though the rest is still over it; one
    that changes no sum says nothing."""
    work, spec = budgeted(tmp_path, 3, 0.05)
    check_budget(spec, work, recorded(spec, 5))
    said = check_budget(spec, work, replace(recorded(spec, 3), status="ready"))
    with pytest.raises(BilboError, match="more than its budget"):
        check_budget(spec, work, recorded(spec, 2))
    with pytest.raises(BilboError, match="more than its budget"):  # only its disks are billed now
        check_budget(spec, work, replace(recorded(spec, 3), status="paused"))
    said()


def test_a_budget_does_not_guess(tmp_path: Path) -> None:
    """What has no known price is refused if it is to be launched, and left alone if it runs."""
    work, spec = budgeted(tmp_path, 3, 100.0, ec2type="x9.huge")
    with pytest.raises(BilboError, match=r"there is no price for x9.huge in us-east-1"):
        check_budget(spec, work)
    there = recorded(spec, 3)
    nodes = [replace(each, ec2type="x9.huge") for each in there.inventory.nodes()]
    same = Inventory(head=nodes[0], workers=tuple(nodes[1:]))
    check_budget(spec, work, replace(there, inventory=same))


def test_prices_that_nobody_tells(tmp_path: Path) -> None:
    """Old ones stay where AWS does not answer; a command that needs none waits for none."""
    save(tmp_path, PRICES)
    work, spec = budgeted(tmp_path, 1, None)
    save(tmp_path, PRICES)
    assert PRICES.old()
    priced = Priced("us-east-1", work)
    assert priced.now() == PRICES
    assert priced.now(30) == PRICES
    check_budget(spec, work)


# -- commands ------------------------------------------------------------------------------


def test_the_commands_without_a_cluster(tmp_path: Path) -> None:
    """They say what is not known, and what to do."""
    bilbo = Bilbo(tmp_path)
    said = bilbo("prices", "show", "--region", "eu-west-1", code=1).stderr
    assert "bilbo prices update --region eu-west-1" in said
    save(tmp_path, PRICES)
    shown = bilbo("prices", "show", "--region", "us-east-1", "m5.large", "x9.huge").stdout
    assert "m5.large" in shown and "0.1000" in shown
    assert "x9.huge" in shown and "unknown" in shown
    said = bilbo("prices", "update", "--region", "cn-north-1", code=3).stderr
    assert "AWS charges CNY in cn-north-1" in said
    assert bilbo("cost").stderr.endswith("No cluster has a ledger yet.\n")
    assert "there is no cluster 'nobody'" in bilbo("cost", "nobody", code=1).stderr
    assert "'soon' is not a duration" in bilbo("cost", "--since", "soon", code=2).stderr
