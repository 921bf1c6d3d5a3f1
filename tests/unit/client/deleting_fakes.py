"""The rpcs that delete, as a small server has them: it deletes nothing, and knows what it was asked."""

from personae.v1 import trainer_pb2


class FakeDeletion:
    """Mixed into a fake trainer."""

    def DeleteDataset(self, request, context):
        self.saw("DeleteDataset", request, context)
        return trainer_pb2.DeleteDatasetResponse()

    def DeleteTraining(self, request, context):
        self.saw("DeleteTraining", request, context)
        return trainer_pb2.DeleteTrainingResponse()

    def DeleteAdapter(self, request, context):
        self.saw("DeleteAdapter", request, context)
        return trainer_pb2.DeleteAdapterResponse()
