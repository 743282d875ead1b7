"""`python -m clients`: writes the types and methods of both clients anew, from the service as it is here."""

from clients.generate import generated
from recops.serving.app import operations
from recops.serving.openapi import describe

for path, text in generated(describe(operations())).items():
    path.write_text(text, encoding="utf-8")
    print(path)
