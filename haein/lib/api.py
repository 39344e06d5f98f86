"""What every endpoint of the REST API shares: strict fields, cursor pages, limits on requests, one shape of errors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.core.cache import cache
from django.db.models import QuerySet
from django.http import Http404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.drainage import set_override
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction
from rest_framework import exceptions, negotiation, serializers
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from haein.lib.errors import Forbidden, Invalid, NotFound, Problem

PROBLEM = "application/problem+json"

# Every code that an answer can have, with its status and title; docs/api.md lists them, and a test holds the two
# together.
CODES: Mapping[str, tuple[int, Any]] = {
    "malformed": (400, gettext_lazy("The request can't be read")),
    "unauthenticated": (401, gettext_lazy("Sign in first")),
    "forbidden": (403, gettext_lazy("Not allowed")),
    "not_found": (404, gettext_lazy("No such thing")),
    "method_not_allowed": (405, gettext_lazy("Not a method of this address")),
    "conflict": (409, gettext_lazy("Not in its present state")),
    "too_large": (413, gettext_lazy("Too large")),
    "unsupported_media_type": (415, gettext_lazy("Not a kind of content that is read here")),
    "range_not_satisfiable": (416, gettext_lazy("No such part of the file")),
    "invalid": (422, gettext_lazy("Some fields are wrong")),
    "idempotency_mismatch": (422, gettext_lazy("The key was used for another request")),
    "too_many_requests": (429, gettext_lazy("Too many requests")),
    "internal": (500, gettext_lazy("The server failed")),
    "unavailable": (503, gettext_lazy("Not available now")),
}


def problem(
    code: str, detail: str, *, fields: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error as a program reads it (RFC 9457), with a sentence for a person and one for each field at fault."""
    return Response(body_of(code, detail, fields), CODES[code][0], headers=dict(headers or {}), content_type=PROBLEM)


def body_of(code: str, detail: str, fields: Mapping[str, str] | None = None) -> dict[str, Any]:
    number, title = CODES[code]
    body: dict[str, Any] = {"type": f"urn:haein:problem:{code}", "title": str(title), "status": number}
    body |= {"detail": detail, "code": code}
    if fields:
        body["errors"] = [{"field": name, "detail": sentence} for name, sentence in fields.items()]
    return body


class MismatchedKey(Exception):
    """An idempotency key that came before with another request."""


def answer_to(error: Exception) -> Response | None:
    """The problem that an exception of ours or of the framework's stands for; None for one that nobody foresaw."""
    if isinstance(error, Http404):
        error = NotFound(_("There is nothing at this address."))
    match error:
        case Invalid():
            return problem("invalid", _("Correct the fields that are named."), fields=error.fields)
        case NotFound():
            return problem("not_found", error.message)
        case Forbidden():
            return problem("forbidden", error.message)
        case Problem():
            return problem("conflict", error.message)
        case MismatchedKey():
            return problem("idempotency_mismatch", str(error))
        case exceptions.ValidationError():
            fields = dict(_flat(error.detail))
            return problem("invalid", _("Correct the fields that are named."), fields=fields)
        case exceptions.Throttled():
            wait = max(1, math.ceil(getattr(error, "wait", None) or 1))
            sentence = _("Wait %(wait)s s before the next request.") % {"wait": wait}
            return problem("too_many_requests", sentence, headers={"Retry-After": str(wait)})
        case exceptions.APIException():
            return _of_framework(error)
    return None


def _of_framework(error: exceptions.APIException) -> Response:
    codes = {number: code for code, (number, _title) in reversed(list(CODES.items()))}
    headers = {}
    if scheme := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = scheme
    return problem(codes.get(error.status_code, "malformed"), str(error.detail), headers=headers)


def _flat(detail: Any, path: str = "") -> Sequence[tuple[str, str]]:
    """(dotted field, sentence) of the framework's nested findings."""
    if isinstance(detail, Mapping):
        return [row for name, inner in detail.items() for row in _flat(inner, _joined(path, str(name)))]
    if isinstance(detail, list) and any(isinstance(each, Mapping) for each in detail):
        return [row for place, inner in enumerate(detail) for row in _flat(inner, _joined(path, str(place)))]
    sentences = detail if isinstance(detail, list) else [detail]
    return [(path, " ".join(map(str, sentences)))] if sentences else []


def _joined(path: str, name: str) -> str:
    if name == "non_field_errors":
        return path
    return f"{path}.{name}" if path else name


class Schema(AutoSchema):
    """The document says of an endpoint what it was given to say, not what its class tells a developer."""

    def get_description(self) -> str:  # type: ignore[override]  # the generator's own base class has it so
        return ""

    def get_serializer_name(self, serializer: serializers.Serializer[Any], direction: Direction) -> str:
        return str(super().get_serializer_name(serializer, direction)).removesuffix("Shape").removeprefix("_")


# --- what comes in ------------------------------------------------------------------------------------------------


class Strict(serializers.Serializer[Any]):
    """Fields that are not known are refused by name: a misspelt one would otherwise be silently left out."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(set(map(str, data)) - set(self.fields))
            if unknown:
                known = ", ".join(self.fields)
                fault = _("There is no such field. Those that there are: %(known)s.") % {"known": known}
                raise serializers.ValidationError({name: [fault] for name in unknown})
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """A JSON string and nothing that could be made one; kept as it came. `pattern` is for the document alone."""

    def __init__(self, *, pattern: str = "", **options: Any) -> None:
        super().__init__(**{"trim_whitespace": False, "allow_blank": True, **options})
        if pattern:
            set_override(self, "field", {"type": "string", "pattern": pattern, **_lengths(options)})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError(_("Give a text."))
        return super().to_internal_value(data)


def _lengths(options: Mapping[str, Any]) -> dict[str, Any]:
    names = {"min_length": "minLength", "max_length": "maxLength", "default": "default", "help_text": "description"}
    return {name: options[key] for key, name in names.items() if key in options}


class Whole(serializers.IntegerField):
    """A JSON integer: neither 1.5, nor "1", nor true."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, float) and data.is_integer():
            data = int(data)
        if not isinstance(data, int) or isinstance(data, bool):
            raise serializers.ValidationError(_("Give a whole number."))
        return super().to_internal_value(data)


class Truth(serializers.BooleanField):
    """JSON's true or false: neither 1 nor "yes"."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError(_("Give true or false."))
        return data


class Number(serializers.FloatField):
    """A JSON number, finite."""

    def to_internal_value(self, data: Any) -> float:
        if not isinstance(data, int | float) or isinstance(data, bool) or not math.isfinite(data):
            raise serializers.ValidationError(_("Give a number."))
        return super().to_internal_value(data)


class Identifier(serializers.UUIDField):
    """A UUID as text."""

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str):
            raise serializers.ValidationError(_("Give an id as text."))
        return super().to_internal_value(data)


Asked = TypeVar("Asked", bound=Strict)


def asked(request: Request, kind: type[Asked]) -> dict[str, Any]:
    """The query's parameters by a serializer. Raises ValidationError for what is wrong or not known."""
    given = {name: values[-1] for name, values in request.query_params.lists()}
    found = kind(data=given)
    found.is_valid(raise_exception=True)
    return dict(found.validated_data)


def sent(request: Request, kind: type[Asked]) -> dict[str, Any]:
    """The body by a serializer. Raises ValidationError, ParseError."""
    if not isinstance(request.data, Mapping):
        raise exceptions.ParseError(_("Send one JSON object."))
    found = kind(data=request.data)
    found.is_valid(raise_exception=True)
    return dict(found.validated_data)


class Raw(BaseParser):
    """A body of bytes, handed on as the stream that it is."""

    media_type = "application/octet-stream"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        return stream


# --- what goes out ------------------------------------------------------------------------------------------------


class Named(serializers.Serializer[Any]):
    """Something by its id and its name."""

    id = serializers.UUIDField()
    name = serializers.CharField()


class OneKind(negotiation.BaseContentNegotiation):
    """Everything is JSON, or what the address says it is: an Accept that asks for another is answered all the same."""

    def select_parser(self, request: Request, parsers: Iterable[Any]) -> Any:
        return negotiation.DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, str(first.media_type)


class Pages(CursorPagination):
    """Newest first by an id that sorts by time: a row that comes meanwhile moves no other to another page."""

    ordering = "-id"
    page_size = 50
    max_page_size = 200
    page_size_query_param = "limit"

    def decode_cursor(self, request: Request) -> Any:
        try:
            return super().decode_cursor(request)
        except exceptions.NotFound:
            raise Invalid({"cursor": _("It is none of ours: take it from `next` or `previous` as it is.")}) from None

    def answer(self, request: Request, view: APIView, rows: QuerySet[Any], shape: Callable[[Any], Any]) -> Response:
        """One page of the rows, each in its shape."""
        found = self.paginate_queryset(rows, request, view)
        return self.get_paginated_response([shape(row) for row in found or []])


class PageQuery(Strict):
    """What every list takes."""

    limit = serializers.IntegerField(
        min_value=1, max_value=Pages.max_page_size, required=False, help_text="rows of a page, 50 by default"
    )
    cursor = serializers.CharField(required=False, help_text="from `next` or `previous` of another page")


class PerReader(BaseThrottle):
    """So many requests a minute for each person, or address where nobody is signed in.

    Counted by each web process for itself, so that no request waits for another service; with n processes the limit
    is up to n times as high.
    """

    def allow_request(self, request: Request, view: APIView) -> bool:
        most = settings.HAEIN_API_RATE
        minute, passed = divmod(time.time(), 60)
        self._wait = 60 - passed
        name = f"api:{request.user.pk or request.META.get('REMOTE_ADDR')}:{minute:.0f}"
        cache.add(name, 0, 120)
        try:
            return cache.incr(name) <= most
        except ValueError:  # so many readers that the count was dropped between the two lines
            return True

    def wait(self) -> float:
        return self._wait
