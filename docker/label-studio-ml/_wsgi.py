"""Serves ALCBackend: `label-studio-ml start FOLDER`, or `gunicorn --preload _wsgi:app`."""

import argparse
import logging
import os
import tempfile
from inspect import signature

from label_studio_ml.api import init_app
from model import ALCBackend

logging.basicConfig(
    level=os.environ.get("LOG_LEVEL") or "INFO",
    format="[%(asctime)s] [%(levelname)s] [%(name)s] %(message)s",
)
# 1.0.9 logs each event whole, and an error with each: no model of its own has been trained.
logging.getLogger("label_studio_ml.model").setLevel(logging.CRITICAL)
logging.getLogger("httpx").setLevel(logging.WARNING)


def make_app(**given):
    """The Flask application; what this version of label-studio-ml does not take is left out.

    Version 1.0.9 keeps a folder for each event while it is worked on, and takes any option; 2.x
    takes the user's name and password of Basic authentication.
    """
    if "basic_auth_user" not in signature(init_app).parameters:
        folder = os.environ.get("MODEL_DIR") or tempfile.mkdtemp(prefix="alc-events-")
        return init_app(model_class=ALCBackend, model_dir=folder)
    if not given["basic_auth_pass"]:
        logging.warning(
            "whoever reaches this server sees masks and can start rounds: set BASIC_AUTH_USER and "
            "BASIC_AUTH_PASS"
        )
    return init_app(model_class=ALCBackend, **given)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Active Label Correction behind label-studio-ml")
    parser.add_argument("-p", "--port", type=int, default=9090)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("-d", "--debug", action="store_true")
    parser.add_argument("--basic-auth-user", default=os.environ.get("BASIC_AUTH_USER"))
    parser.add_argument("--basic-auth-pass", default=os.environ.get("BASIC_AUTH_PASS"))
    args = parser.parse_args()
    app = make_app(basic_auth_user=args.basic_auth_user, basic_auth_pass=args.basic_auth_pass)
    app.run(host=args.host, port=args.port, debug=args.debug, threaded=True)
else:
    app = make_app(
        basic_auth_user=os.environ.get("BASIC_AUTH_USER"),
        basic_auth_pass=os.environ.get("BASIC_AUTH_PASS"),
    )
