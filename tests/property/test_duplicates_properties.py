"""Whatever arrives in whatever order under whatever rule: nothing is lost, and what was decided stays."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.header import InstanceHeader
from gateway.journal import Journal, JournalReader
from gateway.journal.records import Duplicates, NewInstance, Receipt, SeriesDecision

Key = tuple[int, str, int]  # UID, content, series

arrivals = st.tuples(
    st.integers(1, 3), st.sampled_from("abc"), st.sampled_from([1, 1, 1, 2]), st.sampled_from(Duplicates)
)
steps = st.lists(st.one_of(arrivals, arrivals, arrivals, st.none()), max_size=25)


@dataclass
class Model:
    """What the rules say, in the plainest words."""

    member: dict[int, Key] = field(default_factory=dict)
    was_member: set[Key] = field(default_factory=set)
    arrived: Counter[Key] = field(default_factory=Counter)

    def arrive(self, key: Key, rule: Duplicates) -> Receipt:
        uid = key[0]
        receipt = self._receipt(key, rule)
        if receipt is not Receipt.REFUSED:
            self.arrived[key] += 1
        if receipt in (Receipt.STORED, Receipt.REPLACED):
            self.member[uid] = key
            self.was_member.add(key)
        return receipt

    def _receipt(self, key: Key, rule: Duplicates) -> Receipt:
        if key[0] not in self.member:
            return Receipt.STORED
        takes_over = (
            rule is Duplicates.NEW_REVISION
            and self.member[key[0]][2] == key[2]
            and key not in self.was_member
        )
        if takes_over:
            return Receipt.REPLACED
        if self.arrived[key]:
            return Receipt.DUPLICATE
        return Receipt.REFUSED if rule is Duplicates.REFUSE else Receipt.CONFLICT


def instance(key: Key) -> NewInstance:
    uid, _, series = key
    header = InstanceHeader("1.2.3", f"1.2.3.{uid}", "1.2", f"1.2.{series}", {})
    digest = digest_of(key)
    return NewInstance(header, "1.2.840.10008.1.2.1", digest, f"objects/{digest}.dcm", 1, "ct1")


def digest_of(key: Key) -> str:
    return f"{key[0]}{key[1]}{key[2]}"


@settings(max_examples=100)
@given(steps)
def test_every_revision_has_one_member_for_each_uid_and_nothing_is_lost(
    found: list[tuple[int, str, int, Duplicates] | None],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        journal = Journal(path, durable=False)
        reader = JournalReader(path)
        model = Model()
        decided: dict[int, list[str]] = {}
        for number, step in enumerate(found):
            at = float(number // 2)  # the clock may stand still
            if step is None:
                for series in journal.receiving_series():
                    decided[series.id] = [each.digest for each in journal.members(series.id)]
                    decision = SeriesDecision({"reason": ""}, {}, {}, "NO_ROUTE", "", (), refused=False)
                    journal.decide_series(series, decision, at)
            else:
                key = step[:3]
                receipt = journal.record_instance(instance(key), at, step[3])
                assert receipt is model.arrive(key, step[3])
            check(journal, reader, model, decided)
        reader.close()
        journal.close()


def check(journal: Journal, reader: JournalReader, model: Model, decided: dict[int, list[str]]) -> None:
    newest: dict[str, list[str]] = {}
    for record in reader.series():
        members = journal.members(record["id"])
        digests = [each.digest for each in members]
        assert len({each.sop_instance_uid for each in members}) == len(members) == record["instance_count"]
        assert decided.get(record["id"], digests) == digests, "a decided revision never changes"
        newest[record["series_instance_uid"]] = digests
    used = sorted(digest for digests in newest.values() for digest in digests)
    assert used == sorted(digest_of(key) for key in model.member.values())
    paths = [each.path for each in journal.paths_with_prefix("objects/")]
    assert paths == sorted(f"objects/{digest_of(key)}.dcm" for key in model.arrived)
    copies = {r["series_instance_uid"]: reader.series_details(r)["copies"]["times"] for r in reader.series()}
    assert sum(copies.values()) == model.arrived.total() - len(model.arrived)
