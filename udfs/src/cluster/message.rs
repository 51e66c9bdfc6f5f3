//! The operator as a protobuf message. Field numbers are never reused.

/// Version of the messages. Raise it with every change that an older program would misread.
pub(super) const VERSION: u32 = 1;

/// [`RerankExec`](crate::sql::RerankExec) without its input.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OperatorMessage {
    /// [`VERSION`] of the program that wrote it.
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(message, repeated, tag = "2")]
    pub(super) calls: Vec<CallMessage>,
}

/// A score column.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CallMessage {
    /// Name of the column.
    #[prost(string, tag = "1")]
    pub(super) column: String,
    /// The call: a `PhysicalExprNode` of DataFusion.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) function: Vec<u8>,
    /// [`PlannedModel::to_json`](crate::remote::PlannedModel::to_json).
    #[prost(string, tag = "3")]
    pub(super) model: String,
}
