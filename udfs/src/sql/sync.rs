//! The functions for hosts that take none but synchronous ones, such as those behind a foreign function interface.

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// A function that can also block its caller.
pub(crate) trait SyncImpl: ScalarUDFImpl {
    fn invoke_blocking(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue>;
}

/// A function that blocks its caller until the batch is scored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sync<F> {
    function: F,
    signature: Signature,
}

impl<F: SyncImpl> Sync<F> {
    pub(crate) fn new(function: F) -> Self {
        // Volatile, or else a call with constant arguments would be run, model and all, to fold it while planning.
        let signature = Signature { volatility: Volatility::Volatile, ..function.signature().clone() };
        Self { function, signature }
    }
}

impl<F: SyncImpl + PartialEq + Eq + std::hash::Hash> ScalarUDFImpl for Sync<F> {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.function.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.function.invoke_blocking(&args)
    }
}
