"""What the stand-in changes in moto about the account itself: quotas, the key of volumes, and what
instances count towards a quota."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.elastic_block_store import EBSBackend
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance
from moto.ec2.responses.settings import Settings
from moto.servicequotas.models import ServiceQuotasBackend

from bilbo.local.replacements import put, replace

# The quotas of running on-demand instances, and what this account may run of each family: the
# stand-in's own, since AWS's default is 5 vCPUs of the first one and none of the others.
FAMILIES = {
    "L-1216C47A": "Standard (A, C, D, H, I, M, R, T, Z)",
    "L-DB2E81BA": "G and VT",
    "L-6E869C2A": "DL",
    "L-74FC7D96": "F",
    "L-F7808C92": "HPC",
    "L-1945791B": "Inf",
    "L-417A185B": "P",
    "L-2C3B7624": "Trn",
    "L-43DA4232": "High Memory",
    "L-7295265B": "X",
}
# And those of spot instances.
SPOT_FAMILIES = {
    "L-34B43A08": "Standard (A, C, D, H, I, M, R, T, Z)",
    "L-3819A6DF": "G and VT",
    "L-85EED4F7": "DL",
    "L-88CF9481": "F",
    "L-B5D1601B": "Inf",
    "L-7212CCBC": "P",
    "L-6B0D517C": "Trn",
    "L-E3A00192": "X",
}
NAMES = {
    **{code: f"Running On-Demand {name} instances" for code, name in FAMILIES.items()},
    **{code: f"All {name} Spot Instance Requests" for code, name in SPOT_FAMILIES.items()},
}
VCPUS = 20_000.0
_AWSS_OWN_KEY = "alias/aws/ebs"


def install() -> None:
    """Mend moto's account, for the life of this process."""

    @replace(ServiceQuotasBackend, "get_service_quota")
    def get(original: Any, self: Any, service_code: str, quota_code: str) -> Any:
        if service_code != "ec2" or quota_code not in NAMES:
            return original(self, service_code, quota_code)
        return {
            "ServiceCode": service_code,
            "QuotaCode": quota_code,
            "QuotaName": NAMES[quota_code],
            "Value": VCPUS,
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }

    def cpu_options(self: Any) -> dict[str, int]:
        cpus = INSTANCE_TYPES[self.instance_type].get("VCpuInfo", {})
        threads = cpus.get("DefaultThreadsPerCore", 1)
        cores = cpus.get("DefaultVCpus", 1) // threads
        return {"CoreCount": cores, "ThreadsPerCore": threads}

    put(Instance, "cpu_options", property(cpu_options))

    def modify_key(original: Any, self: Any, kms_key_id: str) -> str:
        self.bilbo_ebs_key = original(self, kms_key_id)
        return str(self.bilbo_ebs_key)

    replace(EBSBackend, "modify_ebs_default_kms_key_id")(modify_key)

    def get_key(self: Any) -> ActionResult:
        key = getattr(self.ec2_backend, "bilbo_ebs_key", _AWSS_OWN_KEY)
        return ActionResult({"KmsKeyId": key})

    put(Settings, "get_ebs_default_kms_key_id", get_key)
