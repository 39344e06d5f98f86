"""How people sign up and in: allauth's flows with our words, an organization made at sign-up, every step audited."""

from __future__ import annotations

from typing import Any

from allauth.account import forms as theirs
from allauth.account.adapter import DefaultAccountAdapter
from django import forms
from django.contrib.auth import password_validation
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from haein.lib.errors import Invalid
from haein.tenants import audit, services
from haein.tenants.models import User


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """Client addresses are the socket's own: a forwarded header is trusted from nobody by default."""

    def get_client_ip(self, request: HttpRequest) -> str:
        return request.META.get("REMOTE_ADDR") or "unknown"

    def post_login(self, request: HttpRequest, user: User, **kwargs: Any) -> Any:
        audit.record("account.sign_in", str(user.pk), by=user)
        return super().post_login(request, user, **kwargs)


class Plain:
    """Labels are read, placeholders vanish as soon as one types: our pages have the first alone, in our words."""

    fields: dict[str, forms.Field]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            field.widget.attrs.pop("placeholder", None)
            field.label = _LABELS.get(name, field.label)


_LABELS = {"login": _("E-mail address"), "email": _("E-mail address")}


class LoginForm(Plain, theirs.LoginForm):  # type: ignore[misc]
    pass


class ResetPasswordForm(Plain, theirs.ResetPasswordForm):  # type: ignore[misc]
    pass


class ResetPasswordKeyForm(Plain, theirs.ResetPasswordKeyForm):  # type: ignore[misc]
    pass


class ChangePasswordForm(Plain, theirs.ChangePasswordForm):  # type: ignore[misc]
    pass


class SignupForm(Plain, theirs.SignupForm):  # type: ignore[misc]
    """An address, a password, and the name of the organization that comes with it."""

    name = forms.CharField(label=_("Your name"), max_length=120)
    organization = forms.CharField(label=_("Organization"), max_length=80, help_text=_("Your company or your lab."))
    field_order = ("name", "organization", "email", "password1")

    def clean_organization(self) -> str:
        try:
            services.hold_room_for_organization()
        except Invalid as refused:
            raise forms.ValidationError(refused.message) from None
        name: str = self.cleaned_data["organization"]
        return name

    @transaction.atomic
    def save(self, request: HttpRequest) -> User:
        user: User = super().save(request)
        user.name = self.cleaned_data["name"]
        user.save(update_fields=["name"])
        services.create_organization(by=user, name=self.cleaned_data["organization"])
        return user


class KeepForm(forms.Form):
    """What turns the account of a setup link into one that can be signed in to again."""

    email = forms.EmailField(label=_("E-mail address"))
    password = forms.CharField(
        label=_("Password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=_("At least ten characters."),
    )

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        password_validation.validate_password(password)
        return password
