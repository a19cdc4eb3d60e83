"""A page that shows background tasks running side by side: timeline, traces, what to try, overview.

It asks OAP's GraphQL and the demo service, keeps nothing on disk, and runs as `python -m tracing_console`.
"""
