"""The report of a training: one HTML file that needs nothing else. Pure: no store, no gRPC, no torch.

`course.py` reads events, `charts.py` draws curves, `thumbnails.py` makes pictures small, `usage.py` says how to go on,
`page.py` puts it together.
"""
