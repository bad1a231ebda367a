"""The API over gRPC. Servicers translate: a message in, one domain call, a message out."""
