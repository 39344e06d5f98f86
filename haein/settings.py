"""What the server is made of and how it is set, from HAEIN_* variables or the file that `make up` wrote.

docs/settings.md lists the variables; a test holds that page and this file together.
"""

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import UUID

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

from haein.lib.env import Environment, Misconfigured

BASE = Path(__file__).resolve().parent.parent
VERSION = next(line.split()[1] for line in (BASE / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))

HAEIN_VAR = Path(Environment(Path()).text("HAEIN_VAR", str(BASE / "var"))).resolve()
env = Environment(HAEIN_VAR / "secrets" / "haein.env")

# --- who may talk to us ------------------------------------------------------------------------------------------

SECRET_KEY = env.text("HAEIN_SECRET_KEY")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        f"HAEIN_SECRET_KEY is not set and {HAEIN_VAR}/secrets/haein.env is not there. Run `make up` once, or set it."
    )
DEBUG = env.flag("HAEIN_DEBUG")
ALLOWED_HOSTS = env.words("HAEIN_HOSTS") or ["localhost", "127.0.0.1", "[::1]"]
# The address in e-mails, and whether cookies are for HTTPS only.
HAEIN_URL = env.text("HAEIN_URL", f"http://localhost:{env.text('HAEIN_PORT', '8000')}").rstrip("/")
_https = HAEIN_URL.startswith("https://")
CSRF_TRUSTED_ORIGINS = [HAEIN_URL]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
# Other names of the domain and the browsers' lists are its owner's to decide (W005, W021). Sending plain HTTP on to
# HTTPS is the proxy's work (W008): we believe no header of one, so we could not tell the two apart.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W008", "security.W021"]
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        # plotly.js sets style attributes on what it draws; no script is allowed inline or by eval.
        "style-src": [SELF],
        "style-src-attr": ["'unsafe-inline'"],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
    }
}

# --- parts -------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "haein.apps.HaeinConfig",
    "haein.tenants",
    "haein.cluster",
    "haein.telemetry",
    "jobs",
    "billing",
    "dashboard",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "allauth",
    "allauth.account",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "dashboard.outage.OutageMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "dashboard.scoping.ScopeMiddleware",
]

ROOT_URLCONF = "haein.urls"
ASGI_APPLICATION = "haein.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "dashboard.scoping.page",
            ],
        },
    }
]


def _database(url: str) -> dict[str, object]:
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise Misconfigured("HAEIN_DATABASE_URL must look like postgresql://user:password@host:5432/name")
    options = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", "") or unquote(parts.hostname or ""),
        "PORT": parts.port or "",
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            **options,
            "connect_timeout": 3,
            # One pool a process: threads of the web and of the worker share it. The embedded server takes 200.
            # Without a limit its pauses double, and a server that is back after a minute is found a minute later.
            "pool": {"min_size": 1, "max_size": 20, "timeout": 3, "max_idle": 60, "reconnect_timeout": 3},
        },
    }


DATABASES = {"default": _database(env.text("HAEIN_DATABASE_URL", "postgresql://haein@127.0.0.1:5432/haein"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

HAEIN_REDIS_URL = env.text("HAEIN_REDIS_URL", "redis://127.0.0.1:6379/0")
# redis-py's own default is 5 s to read and none to connect; both are named wherever a client is made.
HAEIN_REDIS_OPTIONS = {"socket_timeout": 5, "socket_connect_timeout": 1}


def _broker(url: str) -> str:
    """Kombu writes a Unix socket's address in its own way."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = dict(parse_qsl(parts.query)).get("db", "0")
    return f"redis+socket://:{parts.password or ''}@{parts.path}?virtual_host={database}"


CELERY_BROKER_URL = _broker(HAEIN_REDIS_URL)
CELERY_BROKER_TRANSPORT_OPTIONS = {**HAEIN_REDIS_OPTIONS, "retry_on_timeout": False}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
# These compute for seconds or minutes: a worker of their own does nothing else (haein/supervisor/up.py).
CELERY_TASK_ROUTES = {
    name: {"queue": "replay"} for name in ("jobs.replay", "jobs.settle", "jobs.promise", "jobs.repack")
}
# A tick that could not run in time is worthless: the next one finds the same work.
CELERY_BEAT_SCHEDULE = {
    "reconcile": {"task": "jobs.reconcile", "schedule": 1.0, "options": {"expires": 2}},
    "old keys": {"task": "tenants.forget_old_keys", "schedule": 3600.0, "options": {"expires": 3600}},
    "abandoned": {"task": "jobs.remove_abandoned_uploads", "schedule": 3600.0, "options": {"expires": 3600}},
    "replay": {"task": "jobs.replay", "schedule": 5.0, "options": {"expires": 5}},
    "settle": {"task": "jobs.settle", "schedule": 600.0, "options": {"expires": 600}},
    "repack": {"task": "jobs.repack", "schedule": 60.0, "options": {"expires": 60}},
    "promise": {"task": "jobs.promise", "schedule": 10.0, "options": {"expires": 10}},
    "old promises": {"task": "jobs.forget_promises", "schedule": 3600.0, "options": {"expires": 3600}},
    "meter": {"task": "billing.meter", "schedule": 5.0, "options": {"expires": 10}},
}

# Counters of sign-in attempts live here; a process of its own counts for itself, so nothing waits for Redis.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        # Beyond its most it drops a third at random, counters included.
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}

# --- people ------------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "overview"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_ADAPTER = "dashboard.accounts.AccountAdapter"
ACCOUNT_FORMS = {
    "signup": "dashboard.accounts.SignupForm",
    "login": "dashboard.accounts.LoginForm",
    "reset_password": "dashboard.accounts.ResetPasswordForm",
    "reset_password_from_key": "dashboard.accounts.ResetPasswordKeyForm",
    "change_password": "dashboard.accounts.ChangePasswordForm",
}
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""

EMAIL_BACKEND = (
    "django.core.mail.backends.smtp.EmailBackend"
    if env.text("HAEIN_SMTP_HOST")
    else "django.core.mail.backends.console.EmailBackend"
)
EMAIL_HOST = env.text("HAEIN_SMTP_HOST")
EMAIL_PORT = env.number("HAEIN_SMTP_PORT", 587, least=1)
EMAIL_HOST_USER = env.text("HAEIN_SMTP_USER")
EMAIL_HOST_PASSWORD = env.text("HAEIN_SMTP_PASSWORD")
EMAIL_USE_TLS = env.flag("HAEIN_SMTP_TLS", True)
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.text("HAEIN_MAIL_FROM", "Haein <haein@localhost>")

# --- programs ----------------------------------------------------------------------------------------------------

HAEIN_API_RATE = env.number("HAEIN_API_RATE", 1200, least=1)
REST_FRAMEWORK = {
    "EXCEPTION_HANDLER": "haein.api.handler",
    "DEFAULT_SCHEMA_CLASS": "haein.lib.api.Schema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    # An endpoint that names nobody is open to nobody.
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Haein",
    "DESCRIPTION": "Jobs on slices of GPUs, for programs. Every page of the dashboard stands on the same verbs.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": ["haein.api.with_problems"],
    "COMPONENT_SPLIT_REQUEST": True,
}

# --- words, times, files -----------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English"))]
LOCALE_PATHS = [BASE / "locale"]
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE / "static"]
# Served from where they lie, so that a first start has nothing to collect.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

HAEIN_UPLOAD_BYTES = env.number("HAEIN_UPLOAD_MB", 512, least=1) << 20
HAEIN_TEAM_UPLOADS_BYTES = env.number("HAEIN_TEAM_UPLOADS_GB", 50, least=1) << 30
FILE_UPLOAD_TEMP_DIR = HAEIN_VAR / "uploads"
FILE_UPLOAD_PERMISSIONS = 0o640

# --- the cluster and the money -----------------------------------------------------------------------------------


def _slurm_users(pairs: list[str]) -> dict[UUID, str]:
    """By organization the user as whom its jobs run."""
    try:
        return {UUID(organization): user for organization, user in (pair.split("=") for pair in pairs)}
    except ValueError:
        raise Misconfigured(
            f"HAEIN_SLURM_USERS is {','.join(pairs)!r}: it must be <organization id>=<user>, with commas between them"
        ) from None


HAEIN_BACKEND = env.text("HAEIN_BACKEND", "local")
if HAEIN_BACKEND not in {"local", "simulator", "slurm"}:
    raise Misconfigured(f"HAEIN_BACKEND is {HAEIN_BACKEND!r}: it must be local, simulator or slurm")
HAEIN_SIM_NODES = env.number("HAEIN_SIM_NODES", 129, least=1)
HAEIN_SIM_DEVICES = env.number("HAEIN_SIM_DEVICES", 8, least=1)
HAEIN_SIM_MODEL = env.text("HAEIN_SIM_MODEL", "B200")
HAEIN_SIM_SPEED = env.number("HAEIN_SIM_SPEED", 1, least=1)
HAEIN_SIM_SEED = env.number("HAEIN_SIM_SEED", 1)
HAEIN_SLURM_CONF = env.text("HAEIN_SLURM_CONF")
HAEIN_SLURM_SSH = env.text("HAEIN_SLURM_SSH")
HAEIN_SLURM_REST_URL = env.text("HAEIN_SLURM_REST_URL")
HAEIN_SLURM_JWT_KEY = env.text("HAEIN_SLURM_JWT_KEY")
HAEIN_SLURM_TOKEN_FILE = env.text("HAEIN_SLURM_TOKEN_FILE")
HAEIN_SLURM_SELF = env.text("HAEIN_SLURM_SELF")
HAEIN_SLURM_FOLDER = Path(env.text("HAEIN_SLURM_FOLDER", str(HAEIN_VAR)))
HAEIN_SLURM_USER = env.text("HAEIN_SLURM_USER")
HAEIN_SLURM_USERS = _slurm_users(env.words("HAEIN_SLURM_USERS"))
HAEIN_SLURM_PARTITIONS = tuple(env.words("HAEIN_SLURM_PARTITIONS"))
HAEIN_SLURM_ACCOUNT = env.text("HAEIN_SLURM_ACCOUNT")
HAEIN_SLURM_ACCOUNTS = env.flag("HAEIN_SLURM_ACCOUNTS")
HAEIN_SLURM_QOS = env.text("HAEIN_SLURM_QOS")
HAEIN_SLURM_RESERVATION = env.text("HAEIN_SLURM_RESERVATION")
HAEIN_SLURM_PATIENCE_SECONDS = env.number("HAEIN_SLURM_PATIENCE_SECONDS", 60, least=5)
HAEIN_SLURM_EMULATED = env.flag("HAEIN_SLURM_EMULATED")
HAEIN_EMULATED_DEVICES = env.number("HAEIN_EMULATED_DEVICES", 8, least=1)
HAEIN_EMULATED_MODEL = env.text("HAEIN_EMULATED_MODEL", "B200")
HAEIN_EMULATED_MEMORY_MB = env.number("HAEIN_EMULATED_MEMORY_MB", 183_359, least=1)
HAEIN_SERVICE_GID = env.number("HAEIN_SERVICE_GID", 0) or None
# Locks that are not put on jobs though the kernel has them (haein/cluster/backends/local/locks.py).
HAEIN_LOCKS_OFF = frozenset(env.words("HAEIN_LOCKS_OFF"))
if unknown := HAEIN_LOCKS_OFF - {"namespaces", "landlock"}:
    raise Misconfigured(f"HAEIN_LOCKS_OFF names {sorted(unknown)}: namespaces and landlock are what can be left off")
HAEIN_GRACE_SECONDS = env.number("HAEIN_GRACE_SECONDS", 10, least=1)
HAEIN_SHARE_HALF_LIFE_HOURS = env.number("HAEIN_SHARE_HALF_LIFE_HOURS", 24, least=1)
HAEIN_SHARE_ENTRY_MINUTES = env.number("HAEIN_SHARE_ENTRY_MINUTES", 60)
# A run that must yield is told so long before it is asked to end, and not before it has run so long; a job that had to
# yield so often is started only where nobody can ask it again.
HAEIN_PREEMPTION_NOTICE_SECONDS = env.number("HAEIN_PREEMPTION_NOTICE_SECONDS", 60, least=1)
HAEIN_PREEMPTION_MIN_RUN_SECONDS = env.number("HAEIN_PREEMPTION_MIN_RUN_SECONDS", 300)
HAEIN_PREEMPTIONS_MOST = env.number("HAEIN_PREEMPTIONS_MOST", 3, least=1)
HAEIN_PREEMPTION_CREDIT_MINUTES = env.number("HAEIN_PREEMPTION_CREDIT_MINUTES", 30)
HAEIN_LOG_MB = env.number("HAEIN_LOG_MB", 128, least=32)
HAEIN_CURRENCY = env.text("HAEIN_CURRENCY", "USD")
# What an hour of a device costs until an operator says otherwise.
HAEIN_FIRST_PRICE = env.text("HAEIN_FIRST_PRICE", "4.00")

LOGGING_CONFIG = None
