"""The addresses of the sockets."""

from django.urls import path

from dashboard import consumers

sockets = [
    path("ws/overview/", consumers.Overview.as_asgi()),
    path("ws/jobs/", consumers.Jobs.as_asgi()),
    path("ws/jobs/<uuid:job_id>/", consumers.JobPage.as_asgi()),
    path("ws/queue/", consumers.Queue.as_asgi()),
    path("ws/cluster/", consumers.Cluster.as_asgi()),
    path("ws/repack/", consumers.RepackPage.as_asgi()),
    path("ws/replays/", consumers.Replays.as_asgi()),
    path("ws/replays/<uuid:replay_id>/", consumers.ReplayPage.as_asgi()),
]
