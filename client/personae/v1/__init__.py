"""The contract of Personae, generated from `protos/personae/v1`: messages in `*_pb2`, stubs in `*_pb2_grpc`."""
