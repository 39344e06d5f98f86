"""The pages of running work: overview, jobs, a job, a new job, its log and its files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dashboard import boards, charts, present
from dashboard.forms import JobForm, span_text
from dashboard.scoping import reader
from haein.cluster.backends.base import LogChunk
from haein.cluster.models import Node
from haein.cluster.registry import backend
from haein.lib import clock, streams
from haein.lib.errors import Invalid, NotFound, Problem
from haein.telemetry import series
from jobs import arrays, examples, search, services, uploads
from jobs.arrays import Array
from jobs.models import Attempt, Job, Upload
from jobs.spec import Spec

PAGE = 25
LOG_PAGE = 256 << 10


def _job(request: HttpRequest, job_id: UUID) -> Job:
    try:
        return services.get(job_id, scope=reader(request))
    except NotFound as missing:
        raise Http404(missing.message) from None


@login_required
@require_GET
def overview(request: HttpRequest) -> HttpResponse:
    scope = reader(request)
    first_run = not Job.objects.seen_by(scope).exists()
    return render(
        request, "dashboard/overview.html", {"first_run": first_run, **boards.overview(scope, now=clock.now())}
    )


@login_required
@require_GET
def jobs(request: HttpRequest) -> HttpResponse:
    # PostgreSQL's text holds no NUL; nothing that is looked for does either.
    asked = {name: request.GET.get(name, "").replace("\0", "") for name in ("q", "state", "tag", "array", "sort")}
    scope, array = reader(request), _array(request, asked["array"])
    found = search.find(
        scope=scope,
        words=asked["q"],
        state=asked["state"],
        tag=asked["tag"],
        array=array.id if array else None,
        sort=asked["sort"],
    )
    sorts = search.sorts(array.id if array else None)
    page = Paginator(found, PAGE).get_page(request.GET.get("page"))
    page.object_list = present.job_rows(page.object_list, now=clock.now())  # type: ignore[assignment]
    context = {
        "page": page,
        "filter": {**asked, "sort": asked["sort"] or next(iter(sorts))},
        "array": boards.array(array, scope) if array else None,
        "states": search.STATES,
        "sorts": list(sorts.items()),
        "query": urlencode({name: value for name, value in asked.items() if value}),
    }
    part = "_jobs_list" if request.headers.get("HX-Request") else "jobs"
    response = render(request, f"dashboard/{part}.html", context)
    response["Vary"] = "HX-Request"
    return response


def _array(request: HttpRequest, asked: str) -> Array | None:
    """The array that a list is of, if it is of one."""
    if not asked:
        return None
    try:
        return arrays.get(UUID(asked), scope=reader(request))
    except ValueError:
        raise Http404(_("There is no such array.")) from None
    except NotFound as missing:
        raise Http404(missing.message) from None


@login_required
@require_POST
def array_cancel(request: HttpRequest, array_id: UUID) -> HttpResponse:
    try:
        count = services.cancel_array(array_id, scope=reader(request))
    except NotFound as missing:
        raise Http404(missing.message) from None
    except Problem as problem:
        messages.error(request, problem.message)
    else:
        told = ngettext(
            "Cancelling %(count)d job: what runs gets a moment to end by itself.",
            "Cancelling %(count)d jobs: what runs gets a moment to end by itself.",
            count,
        )
        messages.success(request, told % {"count": count})
    return redirect(present.array_url(array_id))


@login_required
@require_GET
def job(request: HttpRequest, job_id: UUID) -> HttpResponse:
    scope, found, now = reader(request), _job(request, job_id), clock.now()
    newest = Attempt.objects.seen_by(scope).filter(job=found).select_related("node").order_by("-number").first()
    # Before it is placed, what it may be placed on is what counts.
    emulated = newest.node.emulated if newest else Node.objects.filter(present=True, emulated=True).exists()
    samples = series.whole(newest.pk, now=now) if newest else []
    context = {
        **boards.job_head(found, scope, now=now),
        **boards.job_cost(found, now=now),
        **boards.job_events(found),
        "ended": not found.is_open,
        "command": found.command,
        "spec": _spec_rows(found),
        "attempt_id": str(newest.pk) if newest else "",
        "files_url": reverse("job_files", args=[found.pk]),
        "figures": {
            "utilization": charts.utilization(samples, emulated=emulated),
            "memory": charts.memory(samples, limit_mb=found.memory_mb * found.workers, emulated=emulated),
        },
    }
    return render(request, "dashboard/job.html", context)


def _spec_rows(found: Job) -> list[tuple[str, str]]:
    return [
        (_("GPUs"), present.shape(found)),
        (_("GPU memory"), present.memory(found.gpu_memory_mb) if found.gpu_memory_mb else ""),
        (_("GPU model"), found.gpu_model.replace("|", _(" or "))),
        (_("CPU cores"), present.cores(found.cpus)),
        (_("Memory"), present.memory(found.memory_mb)),
        (_("Workers"), present.workers(found)),
        (_("Pool"), found.pool),
        (_("Labels"), ", ".join(found.labels)),
        (_("Time limit"), present.span(found.time_limit_s)),
        (_("Environment"), found.environment),
        (_("Retries"), str(found.retries)),
        (_("Priority"), str(found.priority)),
        (_("Yields"), present.yields(found)),
        (_("Tags"), ", ".join(found.tags)),
        (_("Files"), found.upload.name if found.upload else ""),
        (_("Variables"), "\n".join(f"{name}={value}" for name, value in found.variables.items())),
        (_("Array"), str(found.array or "")),
        (_("Id"), str(found.pk)),
    ]


@login_required
@require_http_methods(["GET", "POST"])
def job_new(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        return _submit(request, cloned_from=None)
    reader(request)
    name = request.GET.get("example", "")
    try:
        spec = examples.get(name).spec if name else _first_spec()
    except NotFound as missing:
        raise Http404(missing.message) from None
    return _form_page(request, JobForm(initial=JobForm.initial_of(spec)), example=name)


@login_required
@require_http_methods(["GET", "POST"])
def job_clone(request: HttpRequest, job_id: UUID) -> HttpResponse:
    original = _job(request, job_id)
    if request.method == "POST":
        return _submit(request, cloned_from=original)
    initial = JobForm.initial_of(services.spec_of(original))
    return _form_page(request, JobForm(initial=initial), cloned_from=original)


def _first_spec() -> Spec:
    """A spec to begin with: on a small machine the CPUs that go with one GPU are less than a core."""
    node = Node.objects.filter(present=True).order_by("name").first()
    gpus = node.devices.filter(present=True).count() if node else 0
    cpus = min(4000, max(100, node.cpus // max(1, gpus))) if node else 1000
    return Spec(name="", command="", cpus=cpus)


def _form_page(
    request: HttpRequest, form: JobForm, *, cloned_from: Job | None = None, example: str = "", status: int = 200
) -> HttpResponse:
    form.offer(services.offers())
    context = {
        "form": form,
        "environments": backend().environments(),
        "examples": [(name, _(each.title)) for name, each in examples.EXAMPLES.items()],
        "example": example,
        "cloned_from": cloned_from,
        "where_open": form.asks_where(),
        "quote": None,
    }
    return render(request, "dashboard/job_new.html", context, status=status)


def _submit(request: HttpRequest, *, cloned_from: Job | None) -> HttpResponse:
    scope, form = reader(request), JobForm(request.POST, request.FILES)
    if form.is_valid():
        try:
            spec = form.spec()
            services.check(scope=scope, spec=spec)  # before the file is kept, which nobody would need otherwise
            made = services.submit(
                scope=scope, spec=spec, upload=_upload(request, form, cloned_from), cloned_from=cloned_from
            )
        except Invalid as invalid:
            form.explain(invalid.fields)
        except Problem as problem:
            form.add_error(None, problem.message)
        else:
            messages.success(request, _submitted(made, spec))
            return redirect(present.array_url(made.array) if made.array else present.job_url(made.pk))
    example = request.POST.get("example", "")
    return _form_page(request, form, cloned_from=cloned_from, example=example, status=422)


def _submitted(made: Job, spec: Spec) -> str:
    if not made.array:
        return _("Submitted: %(name)s.") % {"name": made.name}
    told = ngettext("Submitted: %(name)s, %(count)d job.", "Submitted: %(name)s, %(count)d jobs.", spec.jobs)
    return told % {"name": made.name, "count": spec.jobs}


def _upload(request: HttpRequest, form: JobForm, cloned_from: Job | None) -> Upload | None:
    """The file that was sent; else the example's, or the original's of a clone."""
    sent = form.cleaned_data["upload"]
    if sent:
        return uploads.keep(sent, team=reader(request).team, name=sent.name, size=sent.size)
    if request.POST.get("example"):
        return examples.upload(request.POST["example"], scope=reader(request))
    return cloned_from.upload if cloned_from else None


@login_required
@require_GET
def quote(request: HttpRequest) -> HttpResponse:
    """The fragment beside the button: price, room, and what would be refused, while the form is being filled in."""
    scope, form = reader(request), JobForm(request.GET)
    form.is_valid()
    spec = form.slice()
    if spec is None:
        return render(request, "dashboard/_quote.html", {"quote": {"fault": _("Say how many GPUs to see the price.")}})
    limit = span_text(spec.time_limit_s) if spec.time_limit_s else ""
    start, fault = services.outlook(spec)
    stands, beyond = services.quota_outlook(scope, spec)
    told = {"limit": limit, "start": start, "fault": fault or beyond, "stands": stands}
    return render(request, "dashboard/_quote.html", {"quote": {**boards.quote(spec, now=clock.now()), **told}})


@login_required
@require_POST
def example_run(request: HttpRequest, name: str) -> HttpResponse:
    try:
        made = examples.run(name, scope=reader(request))
    except NotFound as missing:
        raise Http404(missing.message) from None
    except Problem as problem:
        messages.error(request, problem.message)
        return redirect("overview")
    return redirect("job", made.pk)


@login_required
@require_POST
def job_cancel(request: HttpRequest, job_id: UUID) -> HttpResponse:
    return _act(request, job_id, services.cancel, _("Cancelling: its processes get a moment to end by themselves."))


@login_required
@require_POST
def job_retry(request: HttpRequest, job_id: UUID) -> HttpResponse:
    return _act(request, job_id, services.retry, _("Queued again, in the same folder."))


def _act(request: HttpRequest, job_id: UUID, verb: Any, done: str) -> HttpResponse:
    found = _job(request, job_id)
    try:
        verb(found, scope=reader(request))
    except Problem as problem:
        messages.error(request, problem.message)
    else:
        messages.success(request, done)
    return redirect("job", found.pk)


def _attempt(request: HttpRequest, found: Job) -> Attempt:
    """The attempt that is asked for, by default the newest."""
    attempts = Attempt.objects.seen_by(reader(request)).filter(job=found)
    asked = request.GET.get("attempt", "")
    if asked:
        attempts = attempts.filter(pk=asked) if _is_uuid(asked) else attempts.none()
    newest: Attempt | None = attempts.order_by("-number").first()
    if newest is None:
        raise Http404(_("There is no such attempt."))
    return newest


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


@login_required
@require_GET
def job_log(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """The lines just before an offset, for whoever scrolls up."""
    attempt = _attempt(request, _job(request, job_id))
    text = request.GET.get("before", "")
    if not text.isdecimal() or len(text) > 18:
        return JsonResponse({"error": _("before: give the offset where the shown lines begin.")}, status=400)
    chunk = _chunk_before(attempt, int(text))
    return JsonResponse(
        {
            "attempt": str(attempt.pk),
            "start": chunk.start,
            "next": chunk.next,
            "skipped": chunk.skipped,
            "lines": [[line.at, line.stream, line.text] for line in chunk.lines],
        }
    )


def _chunk_before(attempt: Attempt, before: int) -> LogChunk:
    """Whole lines that end at `before`. An offset in the middle of a line begins at the next one."""
    start = max(0, before - LOG_PAGE)
    start = backend().read_log(attempt.pk, start, 1).start
    return backend().read_log(attempt.pk, start, before - start)


@login_required
@require_GET
def job_log_download(request: HttpRequest, job_id: UUID) -> StreamingHttpResponse:
    found = _job(request, job_id)
    attempt = _attempt(request, found)
    name = f"{found.short_id}-{attempt.number}.log"
    return streams.response(request, _plain_log(attempt), name=name, content_type="text/plain; charset=utf-8")


def _plain_log(attempt: Attempt) -> Iterator[bytes]:
    """In pieces of a few hundred lines: a hundred megabytes must cost neither memory nor a write a line."""
    piece: list[str] = []
    for line in backend().log_stream(attempt.pk):
        at = clock.from_epoch(line.at).astimezone(UTC).isoformat(timespec="milliseconds")
        piece.append(f"{at} {line.stream:5} {line.text}\n")
        if len(piece) == 500:
            yield "".join(piece).encode()
            piece.clear()
    if piece:
        yield "".join(piece).encode()


def _relative(text: str) -> PurePosixPath:
    path = PurePosixPath(text or ".")
    if path.is_absolute() or ".." in path.parts or "\x00" in text:
        raise Http404(_("There is no such file."))
    return path


@login_required
@require_GET
def job_files(request: HttpRequest, job_id: UUID) -> HttpResponse:
    found = _job(request, job_id)
    folder = _relative(request.GET.get("path", ""))
    here = reverse("job_files", args=[found.pk])
    try:
        rows = backend().list_files(found.pk, folder)
    except FileNotFoundError:
        raise Http404(_("There is no such folder.")) from None
    context = {
        "job": present.job_row(found, 0),
        "folder": "" if folder == PurePosixPath(".") else str(folder),
        "crumbs": [
            (part, f"{here}?{urlencode({'path': str(PurePosixPath(*folder.parts[: depth + 1]))})}")
            for depth, part in enumerate(folder.parts)
        ],
        "files": [
            {
                "name": row.path.name,
                "url": (here if row.is_folder else reverse("job_file", args=[found.pk]))
                + f"?{urlencode({'path': str(row.path)})}",
                "is_folder": row.is_folder,
                "size": row.size,
                "modified": clock.from_epoch(row.modified_at),
            }
            for row in rows
        ],
        "count": ngettext("%(count)d entry", "%(count)d entries", len(rows)) % {"count": len(rows)},
        "files_url": here,
    }
    part = "_files" if request.headers.get("HX-Request") else "files"
    return render(request, f"dashboard/{part}.html", context)


@login_required
@require_GET
def job_file(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    found = _job(request, job_id)
    path = _relative(request.GET.get("path", ""))
    try:
        source, fact = backend().open_file(found.pk, path)
    except FileNotFoundError:
        raise Http404(_("There is no such file.")) from None
    try:
        return streams.download(request, source, path.name, size=fact.size, tag=fact.version)
    except streams.RangeError as error:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{error.size}"})
