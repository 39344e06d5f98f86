"""The pages for programs: the tokens that they sign in with, and the API's reference."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dashboard import reference
from dashboard.forms import TokenForm
from dashboard.scoping import reader
from haein.lib import clock
from haein.lib.errors import Invalid, NotFound
from haein.tenants import tokens as verbs
from haein.tenants.models import Token


@login_required
@require_http_methods(["GET", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    """The list, and the form; a token that was just made is on this one answer and on no other."""
    user = reader(request).user
    form = TokenForm(request.POST if request.method == "POST" else None)
    made = ""
    if request.method == "POST" and form.is_valid():
        try:
            _token, made = verbs.create(by=user, **form.cleaned_data)
        except Invalid as invalid:
            for name, sentence in invalid.fields.items():
                form.add_error(name if name in form.fields else None, sentence)
        else:
            form = TokenForm()
    now = clock.now()
    context = {
        "form": form,
        "made": made,
        "address": settings.HAEIN_URL,
        "tokens": [
            {
                "id": token.pk,
                "name": token.name,
                "hint": token.hint,
                "scopes": token.scopes,
                "created": token.created_at,
                "used": token.last_used_at,
                "expires": token.expires_at,
                "expired": token.expires_at is not None and token.expires_at <= now,
            }
            for token in verbs.usable(user)
        ],
        "scopes": Token.Scope.choices,
    }
    response = render(request, "dashboard/tokens.html", context, status=422 if form.errors else 200)
    response["Cache-Control"] = "no-store"
    return response


@require_GET
def job_schema(request: HttpRequest) -> HttpResponse:
    """What an editor checks a job file by; it tells nobody anything of anybody."""
    text = (settings.BASE / "docs/job.schema.json").read_bytes()
    return HttpResponse(text, content_type="application/schema+json")


@login_required
@require_GET
def api(request: HttpRequest) -> HttpResponse:
    """The API's reference, from the very document that programs read."""
    reader(request)
    return render(request, "dashboard/api.html", {"subjects": list(reference.subjects(settings.HAEIN_URL).items())})


@login_required
@require_POST
def token_revoke(request: HttpRequest, token_id: UUID) -> HttpResponse:
    try:
        verbs.revoke(token_id, by=reader(request).user)
    except NotFound as missing:
        raise Http404(missing.message) from None
    messages.success(request, _("Revoked: it opens nothing any more."))
    return redirect("tokens")
