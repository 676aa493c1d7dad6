"""The ledger: what looks at AWS add to it, and what it then tells of hours and money."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from bilbo.aws.lives import sighting
from bilbo.cli import spending
from bilbo.cli.context import Context
from bilbo.costs import Spent, ended_themselves, shares, total
from bilbo.held import Sighting
from bilbo.ledger import ITSELF, Ledger, begun, observed, read, stop, written
from bilbo.present import report
from bilbo.present.cost_text import (
    Account,
    account_document,
    account_text,
    cost_rows,
    notes,
    spent_word,
)
from bilbo.prices import Prices
from bilbo.record import LEDGERS, Record, Store

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
PRICES = Prices("us-east-1", written(NOON), {"t3.micro": 0.01}, {"t3.micro": 0.003}, 0.73, 0.005)
# 10 GiB of disk
DISK = 0.01


def at(hours: float) -> datetime:
    """So many hours after noon."""
    return NOON + timedelta(hours=hours)


def seen(state: str = "running", started: float = 0, name: str = "i-1", **more: object) -> Sighting:
    """A worker with 10 GiB."""
    found = Sighting(name, state, written(at(started)), "worker", "worker", "t3.micro", gib=10)
    return replace(found, **more)  # type: ignore[arg-type]


def ended(hours: float) -> dict[str, Any]:
    """That AWS tells the end exactly."""
    return {"ended": written(at(hours)), "code": "Client.UserInitiatedShutdown"}


class Book:
    """A ledger that looks are written into; the clock is the test's own."""

    def __init__(self) -> None:
        self.text = ""

    def look(self, hours: float, *found: Sighting, prices: Prices = PRICES) -> Ledger:
        """What the ledger tells after a look at this time."""
        for line in observed(read(self.text), found, prices, at(hours)):
            self.text += json.dumps(line) + "\n"
        return read(self.text)


def spent(ledger: Ledger, hours: float, since: float | None = None) -> Spent:
    """What it cost by then."""
    return total(shares(ledger, at(hours), None if since is None else at(since)))


def test_an_hour_costs_an_hour() -> None:
    """A start and an exact stop: machine, address and disk, to the second; twice told is once."""
    book = Book()
    book.look(0.1, seen())
    ledger = book.look(2, seen("terminated", **ended(1)))
    found = spent(ledger, 5)
    assert found.seconds == found.seconds_high == 3600
    assert found.low == found.high == pytest.approx(0.01 + 0.005 + DISK)
    assert read(book.text * 2).machines == ledger.machines
    assert not ended_themselves(ledger)


def test_paused_disks_are_billed() -> None:
    """A stopped machine costs its disk until it is gone; started again it runs anew."""
    book = Book()
    book.look(0.1, seen())
    book.look(1.5, seen("stopped", **ended(1)))
    ledger = book.look(5, seen("running", 4))
    (life,) = ledger.machines.values()
    assert [run.start for run in life.runs] == [at(0), at(4)]
    assert life.running
    found = spent(ledger, 5)
    assert found.seconds == 2 * 3600
    assert found.low == pytest.approx(2 * 0.015 + 5 * DISK)
    assert spent(book.look(6, seen("stopped", 4, **ended(5))), 6).low == pytest.approx(
        2 * 0.015 + 6 * DISK
    )


def test_one_that_ended_itself_has_bounds() -> None:
    """AWS tells no time then: no sooner than it was last seen, no later than now; a later look does
    not narrow that, and what the machine itself told does."""
    book = Book()
    book.look(1, seen())
    gone = seen("terminated", code="Client.InstanceInitiatedShutdown")
    ledger = book.look(3, gone)
    found = spent(ledger, 9)
    assert (found.seconds, found.seconds_high) == (3600, 3 * 3600)
    assert found.low < found.high
    ((_, run),) = ended_themselves(ledger)
    assert (run.why, run.exact) == (ITSELF, False)
    assert book.look(4, gone).machines == ledger.machines
    told = read(book.text + json.dumps(stop("i-1", at(2), at(2))) + "\n")
    assert spent(told, 9).seconds == spent(told, 9).seconds_high == 2 * 3600
    assert told.machines["i-1"].runs[-1].why == ITSELF


def test_a_stopped_one_that_goes_keeps_its_hours() -> None:
    """That a machine which ended itself is terminated later tells nothing of when it ended."""
    book = Book()
    book.look(1, seen())
    stopped = seen("stopped", code="Client.InstanceInitiatedShutdown")
    before = book.look(3, stopped).machines["i-1"].runs
    after = book.look(6, seen("terminated", **ended(5))).machines["i-1"]
    assert after.runs == before
    assert after.gone == after.gone_latest == at(5)
    book = Book()
    book.look(1, seen())
    before = book.look(3, stopped).machines["i-1"].runs
    after = book.look(6).machines["i-1"]
    assert after.runs == before
    assert (after.gone, after.gone_latest) == (at(3), at(6))


def test_what_aws_shows_no_more_has_bounds() -> None:
    """An instance that is gone ended between the last look and this one."""
    book = Book()
    book.look(0.5, seen(), seen(name="i-2"))
    ledger = book.look(3, seen())
    run = ledger.machines["i-2"].runs[-1]
    assert (run.end, run.latest) == (at(0.5), at(3))
    assert ledger.machines["i-1"].running
    assert ledger.machines["i-2"].gone_latest == at(3)


def test_a_stop_and_start_that_nobody_saw() -> None:
    """A launch time later than the known one: the earlier run ended before it at the latest."""
    book = Book()
    book.look(1, seen())
    ledger = book.look(6, seen("running", 5))
    first, second = ledger.machines["i-1"].runs
    assert (first.end, first.latest, second.start) == (at(1), at(5), at(5))


def test_a_look_that_comes_late_knows_all_that_aws_tells() -> None:
    """Machines that started and ended before the first look count; what they cost is exact."""
    ledger = Book().look(3, seen("terminated", 1, **ended(2)))
    assert spent(ledger, 3).seconds == 3600


def test_what_runs_counts_between_the_last_look_and_now() -> None:
    """Without a new look it has run until the last one at least, and until now at most."""
    book = Book()
    book.look(0, seen())
    found = spent(book.look(1, seen()), 3)
    assert (found.seconds, found.seconds_high) == (3600, 3 * 3600)


def test_unknown_prices() -> None:
    """They are never 0: sums say that they are the least. A price that becomes known is filled in,
    and one that was known stays as it was at the start."""
    book = Book()
    ledger = book.look(1, seen(), prices=Prices("us-east-1"))
    assert ledger.machines["i-1"].runs[0].usd["machine"] is None
    assert spent(ledger, 1) == Spent(0, 0, 3600, 3600, unknown=True)
    assert spent_word(ledger, at(1)) == "?"
    assert "No price was known for t3.micro." in notes(Account("one", "ready", ledger))
    ledger = book.look(2, seen())
    assert not spent(ledger, 2).unknown
    dearer = replace(PRICES, machines={"t3.micro": 99.0})
    assert book.look(3, seen(), prices=dearer).machines == ledger.machines


def test_spot_and_other_disks() -> None:
    """A spot instance has the spot price; disks that are not gp3 have no known price."""
    book = Book()
    ledger = book.look(1, seen(spot=True), seen(name="i-2", others=True), seen(name="i-3", gib=0))
    assert ledger.machines["i-1"].runs[0].usd["machine"] == 0.003
    assert ledger.machines["i-2"].runs[0].usd["disk"] is None
    assert ledger.machines["i-3"].runs[0].usd["disk"] is None


def test_days_and_since() -> None:
    """Money is told by day in UTC, and from a moment on."""
    book = Book()
    ledger = book.look(37, seen("terminated", **ended(36)))
    by_day: dict[str, float] = {}
    for each in shares(ledger, at(40)):
        by_day[each.day] = by_day.get(each.day, 0.0) + each.spent.low
    assert by_day == {
        "2026-03-01": pytest.approx(12 * 0.025),
        "2026-03-02": pytest.approx(24 * 0.025),
    }
    assert spent(ledger, 40, since=30).low == pytest.approx(6 * 0.025)
    assert spent(ledger, 40, since=37) == Spent()


def test_damaged_lines_are_counted() -> None:
    """The others count all the same, and a person is told."""
    book = Book()
    book.look(1, seen())
    good = book.text
    bad = ['{"event": "start"}', "[]", "x", '{"event": "stop", "id": "i-9", "at": 1}', "[" * 9999]
    ledger = read("\n".join([good, *bad, '{"event": "new"}', "\n"]))
    assert ledger.machines == read(good).machines
    assert ledger.damaged == 6
    assert "6 lines of the ledger cannot be read." in notes(Account("one", "ready", ledger))


def test_what_a_person_reads() -> None:
    """The cluster's sum, its groups and days, since when it is known, and what is not certain."""
    book = Book()
    book.text = json.dumps(begun(at(0.5), whole=False)) + "\n"
    book.look(1, seen())
    ledger = book.look(3, seen("stopped", code="Client.InstanceInitiatedShutdown"))
    account = Account("one", "ready", ledger, why_old="it did not answer")
    text = account_text(account, at(3), None)
    assert "worker: 0.0450 to 0.0750 USD, 1.00 to 3.00 machine hours" in text
    assert "2026-03-01: 0.0450 to 0.0750 USD" in text
    assert "Known since 2026-03-01 12:30:00 UTC" in text
    assert "i-1: ended itself after 2026-03-01 13:00:00 UTC, within 2h." in text
    assert "since AWS was not asked: it did not answer" in text
    rows = cost_rows([account, account], at(3), None)
    assert rows[0] == ("CLUSTER", "STATUS", "SINCE", "HOURS", "USD")
    assert rows[-1][-1] == "0.0900 to 0.1500"
    document = account_document(account, at(3), None)
    assert document["usd"] == {"low": pytest.approx(0.045), "high": pytest.approx(0.075)}
    assert document["machines"][0]["runs"][0]["why"] == ITSELF
    assert not document["from_the_beginning"]


def test_what_aws_answers() -> None:
    """An instance's answer: its start, its end where AWS tells one, its disks by type."""
    instance = {
        "InstanceId": "i-1", "LaunchTime": NOON, "InstanceType": "t3.micro",
        "State": {"Name": "stopped"}, "StateReason": {"Code": "Client.UserInitiatedShutdown"},
        "StateTransitionReason": "User initiated (2026-03-01 13:00:00 GMT)",
        "Tags": [{"Key": "bilbo:role", "Value": "notebook"}], "InstanceLifecycle": "spot",
    }  # fmt: skip
    disk = {"VolumeType": "gp3", "Size": 8, "Attachments": [{"InstanceId": "i-1"}]}
    other = {**disk, "VolumeType": "io2", "Attachments": [{"InstanceId": "i-2"}]}
    found = sighting(instance, [disk, other])
    assert (found.started, found.ended) == (written(at(0)), written(at(1)))
    assert (found.group, found.gib, found.others, found.spot) == ("notebook", 8, False, True)
    found = sighting({**instance, "StateTransitionReason": ""}, [{**other,
        "Attachments": [{"InstanceId": "i-1"}]}])  # fmt: skip
    assert (found.ended, found.gib, found.others) == ("", 0, True)


def test_clusters_have_a_column() -> None:
    """What each has cost so far, where a ledger tells; without any ledger the table is as ever."""
    record = Record("one", "ready", "us-east-1", "dask", written(NOON), {}, "")
    assert report.clusters([record])[0][-1] == "ENDS"
    rows = report.clusters([record], ["two"], {"one": "0.42"})
    assert [row[-1] for row in rows] == ["USD", "0.42", "-"]
    book = Book()
    assert spent_word(book.look(2, seen("terminated", **ended(1))), at(9)) == "0.03"
    assert spent_word(Ledger(), at(9)) == ""


def test_a_ledger_that_cannot_be_read_hides_no_cluster(tmp_path: Path) -> None:
    """The list of clusters does without it."""
    store = Store(tmp_path)
    (store.folder("one") / "ledger.jsonl").mkdir(parents=True)
    record = Record("one", "ready", "us-east-1", "dask", written(NOON), {}, "")
    assert spending.spent(Context(verbose=0, local=False, home=tmp_path), [record]) == {}


def test_it_outlives_its_cluster(tmp_path: Path) -> None:
    """What is forgotten of a cluster is not its ledger; a second one of the same name has its
    own."""
    store = Store(tmp_path)
    for number in range(2):
        store.folder("one").mkdir(parents=True)
        (store.folder("one") / "ledger.jsonl").write_text(f"{number}")
        store.forget("one")
    kept = sorted((tmp_path / LEDGERS).iterdir())
    assert [each.read_text() for each in kept] == ["0", "1"]
    assert all(each.name.startswith("one-2") for each in kept)
    assert not store.folder("one").exists()
