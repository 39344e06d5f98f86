"""What the web server runs: pages over HTTP, live views over one socket a page."""

import gc
import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "haein.settings")

pages = get_asgi_application()  # before the routes: they need the apps to be loaded

from dashboard.origin import SameOrigin  # noqa: E402
from dashboard.routes import sockets  # noqa: E402
from haein.lib.limits import ROOM, BodyLimit  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": BodyLimit(pages, settings.HAEIN_UPLOAD_BYTES + ROOM),
        "websocket": SameOrigin(AuthMiddlewareStack(URLRouter(sockets))),
    }
)

# What is loaded by now stays for good. To look through it in every full collection took 50 ms of one page in twelve.
gc.collect()
gc.freeze()
