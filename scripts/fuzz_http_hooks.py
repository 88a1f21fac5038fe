"""What Schemathesis has to know of this API beside its description."""

import schemathesis
from hypothesis import strategies as st
from schemathesis import openapi

# A tree is whatever comes: the program in the computer says whether it is tar.
openapi.media_type("application/x-tar", st.binary(max_size=2048))


@schemathesis.hook
def map_body(context, body):
    """No setup scripts: who calls a computer whose setup fails waits for it for minutes."""
    if isinstance(body, dict) and isinstance(body.get("spec"), dict):
        body["spec"].pop("setup", None)
    return body
