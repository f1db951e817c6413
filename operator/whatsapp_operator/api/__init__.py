"""The custom resource: names, reasons and conditions, models, and the generator of its definition.

`names`, `reasons`, `phones` and `masking` use the standard library only, because the session pod imports them too.
"""
