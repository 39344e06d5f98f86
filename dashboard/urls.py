"""The addresses of the pages."""

from django.urls import path

from dashboard.views import money, people, place, programs, queue, quota, replay, work

urlpatterns = [
    path("", work.overview, name="overview"),
    path("setup/<str:token>/", people.setup, name="setup"),
    path("accounts/keep/", people.keep_account, name="keep_account"),
    path("jobs/", work.jobs, name="jobs"),
    path("jobs/new/", work.job_new, name="job_new"),
    path("jobs/new/quote/", work.quote, name="quote"),
    path("jobs/<uuid:job_id>/", work.job, name="job"),
    path("jobs/<uuid:job_id>/cancel/", work.job_cancel, name="job_cancel"),
    path("jobs/<uuid:job_id>/retry/", work.job_retry, name="job_retry"),
    path("jobs/<uuid:job_id>/clone/", work.job_clone, name="job_clone"),
    path("jobs/<uuid:job_id>/log/", work.job_log, name="job_log"),
    path("jobs/<uuid:job_id>/log.txt", work.job_log_download, name="job_log_download"),
    path("jobs/<uuid:job_id>/files/", work.job_files, name="job_files"),
    path("jobs/<uuid:job_id>/files/download/", work.job_file, name="job_file"),
    path("examples/<slug:name>/run/", work.example_run, name="example"),
    path("queue/", queue.queue, name="queue"),
    path("billing/", money.billing, name="billing"),
    path("billing/usage.csv", money.billing_csv, name="billing_csv"),
    path("cluster/", place.cluster, name="cluster"),
    path("cluster/nodes/<str:name>/", place.node, name="node"),
    path("cluster/nodes/<str:name>/drain/", place.node_drain, name="node_drain"),
    path("cluster/nodes/<str:name>/undrain/", place.node_undrain, name="node_undrain"),
    path("quota/", quota.own, name="quota"),
    path("api/", programs.api, name="api_docs"),
    path("job.schema.json", programs.job_schema, name="job_schema"),
    path("tokens/", programs.tokens, name="tokens"),
    path("tokens/<uuid:token_id>/revoke/", programs.token_revoke, name="token_revoke"),
    path("operator/quotas/", quota.sheet, name="quotas"),
    path("operator/prices/", money.prices_page, name="prices"),
    path("operator/replays/", replay.replay_list, name="replays"),
    path("operator/replays/<uuid:replay_id>/", replay.replay, name="replay"),
    path("operator/replays/<uuid:replay_id>/cancel/", replay.replay_cancel, name="replay_cancel"),
    path("operator/replays/<uuid:replay_id>/delete/", replay.replay_delete, name="replay_delete"),
    path("operator/replays/<uuid:replay_id>/runs.csv", replay.replay_csv, name="replay_csv"),
    path("operator/replays/<uuid:replay_id>/curves.csv", replay.replay_curves_csv, name="replay_curves_csv"),
]
