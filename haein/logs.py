"""One way to log for every process: a line with its time, what happened and the values that matter."""

import logging

import structlog


def configure() -> None:
    """Sends the standard library's records and structlog's own through one renderer to standard error."""
    shared = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=True),
                # Its own formatter would show local variables: passwords, and rows asked of a database that is away.
                structlog.dev.ConsoleRenderer(
                    colors=False, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
                ),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # A line for every tick of every second would drown what matters.
    for noisy in ("celery.beat", "celery.worker.strategy", "celery.app.trace", "psycopg.pool", "_granian", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
