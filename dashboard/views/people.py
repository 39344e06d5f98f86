"""The pages of accounts that allauth does not have: the first operator's link, and keeping that account."""

from django.contrib import messages
from django.contrib.auth import login, update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.core.cache import cache
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from dashboard.accounts import KeepForm
from haein.lib.errors import Invalid, NotFound
from haein.tenants import services

BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
TRIES_A_MINUTE = 30


@require_GET
def setup(request: HttpRequest, token: str) -> HttpResponse:
    """The link that `make up` prints: whoever opens it first is the operator."""
    cache.add("setup", 0, 60)
    try:
        if cache.incr("setup") > TRIES_A_MINUTE:
            raise NotFound(_("Too many links were tried. Wait a minute."))
        operator = services.open_setup_link(token)
    except NotFound as missing:
        return render(request, "dashboard/welcome_problem.html", {"message": missing.message}, status=404)
    login(request, operator, backend=BACKEND)
    return redirect("overview")


@login_required
@require_http_methods(["GET", "POST"])
def keep_account(request: HttpRequest) -> HttpResponse:
    form = KeepForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            user = services.keep_account(by=request.user, **form.cleaned_data)
        except NotFound as missing:
            raise Http404(missing.message) from None
        except Invalid as invalid:
            form.add_error("email", invalid.message)
        else:
            update_session_auth_hash(request, user)
            messages.success(request, _("Kept: from now on sign in with %(email)s.") % {"email": user.email})
            return redirect("overview")
    return render(request, "dashboard/keep_account.html", {"form": form}, status=422 if form.errors else 200)
