//! What of the operator travels. Numbers of fields are never used again for something else.

/// The remedy where programs do not understand each other.
pub(super) const MIXED_VERSIONS: &str = "run one version of this program on client, scheduler and executors";

/// [`RerankExec`](crate::sql::RerankExec) without its input.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OperatorMessage {
    /// [`VERSION`](super::codec::VERSION) of the program that wrote it.
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
    /// [`PlannedModel::to_json`](super::PlannedModel::to_json).
    #[prost(string, tag = "3")]
    pub(super) model: String,
}
