"""Every address of the server."""

from django.urls import include, path

from dashboard.outage import alive

urlpatterns = [
    path("healthz", alive, name="healthz"),
    path("accounts/", include("dashboard.account_urls")),
    path("api/v1/", include("haein.api")),
    path("", include("dashboard.urls")),
]

handler500 = "dashboard.outage.server_error"
