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
VCPUS = 20_000.0
_AWSS_OWN_KEY = "alias/aws/ebs"


def install() -> None:
    """Mend moto's account, for the life of this process."""

    @replace(ServiceQuotasBackend, "get_service_quota")
    def get(original: Any, self: Any, service_code: str, quota_code: str) -> Any:
        if service_code != "ec2" or quota_code not in FAMILIES:
            return original(self, service_code, quota_code)
        return {
            "ServiceCode": service_code,
            "QuotaCode": quota_code,
            "QuotaName": f"Running On-Demand {FAMILIES[quota_code]} instances",
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
