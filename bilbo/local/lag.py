"""EC2's eventual consistency: what was just made is not found for a while.

"The result of an API command you run that affects your Amazon EC2 resources might not be
immediately visible to all subsequent commands you run": a call by id fails with
`InvalidInstanceID.NotFound` and the like, a list leaves the resource out, tags come later. Source:
https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl
from xml.etree import ElementTree

# A kind of id, the element of an answer that names it, and the code of who asks too early.
KINDS = {
    "i": ("instanceId", "InvalidInstanceID.NotFound", "instance ID"),
    "sg": ("groupId", "InvalidGroup.NotFound", "security group"),
    "lt": ("launchTemplateId", "InvalidLaunchTemplateId.NotFound", "launch template"),
    "vol": ("volumeId", "InvalidVolume.NotFound", "volume"),
    "eni": ("networkInterfaceId", "InvalidNetworkInterfaceID.NotFound", "networkInterface ID"),
}
_ID = re.compile(r"\b(i|sg|lt|vol|eni)-[0-9a-f]{8,17}\b")
# Lists of resources. What is named elsewhere in an answer, such as an instance's groups, stays.
_LISTS = {
    "reservationSet", "instancesSet", "securityGroupInfo", "launchTemplates", "volumeSet",
    "networkInterfaceSet", "launchTemplateVersionSet", "instanceStatusSet",
}  # fmt: skip
_MAKES = {"CreateSecurityGroup": "sg-", "CreateLaunchTemplate": "lt-", "CreateVolume": "vol-"}
_LOOKS = "Describe"


@dataclass
class Lag:
    """What was made when, on the clock. `tags` are those of each `(resource, key)`."""

    clock: Callable[[], float] = time.monotonic
    made: dict[str, float] = field(default_factory=dict)
    tags: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, name: str, body: str, answer: bytes) -> None:
        """Remember what a call has made, but for instances, which a group launches too: `make`."""
        if name == "CreateTags":
            asked = parse_qsl(body)
            ids = [value for key, value in asked if key.startswith("ResourceId.")]
            keys = [value for key, value in asked if re.fullmatch(r"Tag\.\d+\.Key", key)]
            now = self.clock()
            self.tags.update({(each, key): now for each in ids for key in keys})
        elif name in _MAKES:
            found = _ids(answer.decode("utf-8", "replace")) - _ids(body)
            self.make(*(each for each in found if each.startswith(_MAKES[name])))

    def make(self, *ids: str) -> None:
        """Remember that these are new."""
        for each in ids:
            self.made.setdefault(each, self.clock())

    def too_early(self, name: str, body: str, seconds: float) -> tuple[str, str, str] | None:
        """Status, code and words for a call that names by id what is not to be found yet."""
        if not name.startswith(_LOOKS):
            return None
        for key, value in parse_qsl(body):
            # A filter that finds nothing is no error.
            if not key.startswith("Filter.") and self._hidden(value, seconds):
                _, code, what = KINDS[value.partition("-")[0]]
                return ("400 Bad Request", code, f"The {what} '{value}' does not exist")
        return None

    def told(self, name: str, answer: bytes, seconds: float) -> bytes:
        """The answer to a call that looks, without what is not to be found yet."""
        young = any(self._hidden(each, seconds) for each in _ids(answer.decode("utf-8", "replace")))
        new_tags = any(self.clock() - at < seconds for at in self.tags.values())
        if not name.startswith(_LOOKS) or not (young or new_tags):
            return answer
        root = ElementTree.fromstring(answer)
        space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
        ElementTree.register_namespace("", space.strip("{}"))
        self._prune(root, space, seconds)
        pruned: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        return pruned

    def _prune(self, element: ElementTree.Element, space: str, seconds: float) -> None:
        for child in list(element):
            name = child.tag.removeprefix(space)
            for item in list(child) if name in _LISTS else ():
                if self._hidden(self._id_of(item, space), seconds) or (
                    name == "reservationSet" and self._is_empty(item, space, seconds)
                ):
                    child.remove(item)
            identifier = self._id_of(element, space)
            for item in list(child) if name == "tagSet" else ():
                key = item.findtext(f"{space}key") or ""
                owner = identifier or item.findtext(f"{space}resourceId") or ""
                if self.clock() - self.tags.get((owner, key), -seconds) < seconds:
                    child.remove(item)
            self._prune(child, space, seconds)

    def _is_empty(self, reservation: ElementTree.Element, space: str, seconds: float) -> bool:
        found = reservation.findall(f"{space}instancesSet/{space}item")
        return all(self._hidden(self._id_of(each, space), seconds) for each in found)

    def _id_of(self, item: ElementTree.Element, space: str) -> str:
        found = (item.findtext(f"{space}{element}") for element, _, _ in KINDS.values())
        return next(filter(None, found), "")

    def _hidden(self, identifier: str, seconds: float) -> bool:
        return self.clock() - self.made.get(identifier, -seconds) < seconds


def _ids(text: str) -> set[str]:
    return {match[0] for match in _ID.finditer(text)}
