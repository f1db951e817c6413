"""The session pod: a small supervisor that owns state and reports, and a worker process that runs neonize.

`python -m whatsapp_operator.session` is the supervisor, `...session.worker` the child it starts, `...session.messages`
the command line used inside the pod until messaging has an interface of its own.

The supervisor holds the standard library and what `api` has without models only: the pod is to idle within 64 MiB.
"""
