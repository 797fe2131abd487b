"""Everything one MAD may reach: one identity, one set of ports."""

from core.policy.capabilities import Identity
from core.ports.bus import LocalBus
from core.ports.files import LocalFiles
from core.ports.llm import LocalLlm
from core.ports.secrets import LocalSecrets
from core.ports.services import Allowance, Services
from core.ports.web import LocalWeb
from protos.mad import Context
from protos.v1.session_pb2 import Assignment


def context_for(services: Services, identity: Identity, assignment: Assignment, allowance: Allowance) -> Context:
    """Everything one MAD may reach."""
    return Context(
        bus=LocalBus(services, identity, allowance, assignment.trigger),
        files=LocalFiles(services, identity, allowance),
        assignment=assignment,
        llm=LocalLlm(services, identity, allowance),
        web=LocalWeb(services, identity, allowance),
        secrets=LocalSecrets(services, identity),
    )
