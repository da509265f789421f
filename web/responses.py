"""Answers that several pages give: going on to another page, and a file to keep."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, redirect


def see_other(path: str) -> Response:
    """Go on to another page of ours, after a form was taken."""
    response = redirect(path, HTTPStatus.SEE_OTHER)
    assert isinstance(response, Response), "flask's own"
    return response


def download(text: str, name: str, kind: str) -> Response:
    """A file to keep, of that media type."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, content_type=f"{kind}; charset=utf-8", headers=headers)
