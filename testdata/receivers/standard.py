"""A receiver that verifies with the published Standard Webhooks library."""
import os

from flask import Flask, request
from standardwebhooks import Webhook, WebhookVerificationError

app = Flask(__name__)
verifier = Webhook(os.environ["WEBHOOK_SECRET"])


@app.route("/webhooks", methods=["POST"])
def webhook():
    try:
        verifier.verify(request.data, dict((k.lower(), v) for k, v in request.headers))
    except WebhookVerificationError as error:
        return {"error": str(error)}, 401
    return "", 204
