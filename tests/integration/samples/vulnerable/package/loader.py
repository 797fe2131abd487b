import base64  # nosec

exec(base64.b64decode("cHJpbnQoMSk="))  # nosec
