"""What the core does once an hour, so that nothing grows for ever: forgets bodies, retired secrets, unlinked blobs."""

import time

import structlog
from anyio import sleep

from core.config import Config
from core.ports.links import linked_since
from core.ports.services import Services
from core.rogers.retention import DAY_S, Retention, retain
from protos.errors import Error

logger = structlog.get_logger()

EVERY_S = 3600.0


async def tend(services: Services, config: Config) -> None:
    """Tends the lab, at once and then every hour, until cancelled. What cannot be done now is done next time."""
    while True:
        try:
            await tend_once(services, config)
        except Error as error:
            logger.warning("upkeep has to wait", reason=error.message)
        except Exception:  # the lab must outlive a fault in its housekeeping
            logger.exception("upkeep failed")
        await sleep(EVERY_S)


async def tend_once(services: Services, config: Config) -> None:
    """One round.

    Raises:
        Unavailable: the journal is sealed.
    """
    setting = config.journal
    retention = Retention(
        events_s=setting.events_days * DAY_S or None,
        messages_s=setting.messages_days * DAY_S or None,
        answers_s=setting.answers_days * DAY_S or None,
        acts_s=setting.acts_days * DAY_S or None,
        max_bytes=int(setting.max_gb * 1024**3) or None,
        seal_s=setting.seal_days * DAY_S or None,
    )
    retained = await retain(services.journal, retention)
    if retained.bodies_removed or retained.headers_sealed:
        logger.info("forgot", bodies=retained.bodies_removed, headers_sealed=retained.headers_sealed)
    if services.turing is not None:
        await services.turing.custody.tend()
    if config.files.keep_days:
        linked = await linked_since(services.journal, time.time() - config.files.keep_days * DAY_S)
        swept = await services.horace.sweep(linked)
        if swept.blobs:
            logger.info("swept", blobs=swept.blobs, bytes=swept.bytes)
