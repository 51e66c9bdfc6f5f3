//! The operators as ONNX Runtime sees them on a GPU.

use std::ptr::{self, NonNull};

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::{DynTensorValueType, TensorElementType};

use super::driver::{Handle, Kernels, TYPES, kernels};
use super::launch::counts;
use crate::graph::{OWN_DOMAIN, OwnOperator};

/// All operators, for a session on a GPU.
///
/// # Errors
/// Why the kernels cannot be loaded, or what ONNX Runtime says.
pub(in crate::engine) fn cuda_operators() -> ort::Result<OperatorDomain> {
    let kernels = kernels().map_err(ort::Error::new)?;
    let mut domain = OperatorDomain::new(OWN_DOMAIN)?;
    for operator in OwnOperator::ALL {
        for (data_type, _) in TYPES {
            let kernel = kernels.get(operator, data_type);
            let kernel = kernel.ok_or_else(|| ort::Error::new(format!("{} has no kernel", operator.name())))?;
            domain = domain.add(CudaOperator { operator, data_type, kernels, kernel })?;
        }
    }
    Ok(domain)
}

/// An operator on tensors of one type.
#[derive(Clone, Copy)]
struct CudaOperator {
    operator: OwnOperator,
    data_type: TensorElementType,
    kernels: &'static Kernels,
    kernel: Handle,
}

impl Operator for CudaOperator {
    type Kernel<'attr> = Self;

    fn name(&self) -> &str {
        self.operator.name()
    }

    fn execution_provider_type(&self) -> Option<&str> {
        Some("CUDAExecutionProvider")
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        (0..self.operator.operands()).map(|_| OperatorInput::required(self.data_type)).collect::<Vec<_>>()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(self.data_type)]
    }

    fn create_kernel(&self, _context: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(*self)
    }
}

impl Kernel for CudaOperator {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let missing = || ort::Error::new(format!("{} lacks an operand", self.operator.name()));
        let (mut shapes, mut pointers) = (Vec::new(), Vec::new());
        for index in 0..self.operator.operands() {
            let input = context.input(index)?.ok_or_else(missing)?.downcast::<DynTensorValueType>()?;
            shapes.push(input.shape().iter().map(|dim| *dim as usize).collect::<Vec<_>>());
            pointers.push(input.data_ptr().cast_mut());
        }
        let mut counts =
            counts(self.operator, &shapes, self.data_type.byte_size(1).unwrap_or(1)).map_err(ort::Error::new)?;
        // The result has the shape of the first operand.
        let shape: Vec<i64> = shapes[0].iter().map(|dim| *dim as i64).collect();
        let output = context.output(0, shape)?.ok_or_else(missing)?.downcast::<DynTensorValueType>()?;
        pointers.push(output.data_ptr().cast_mut());
        let stream = context.stream()?.map_or(ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: the stream is that of the session's run, whose context ONNX Runtime makes current. The tensors are on its GPU,
        // since the operator is the CUDA provider's and asks for no other memory; their sizes follow from their shapes, like
        // the counts; and ONNX Runtime orders what else reads and writes them on the same stream.
        unsafe { self.kernels.launch(self.kernel, &mut pointers, &mut counts, stream.cast()) }.map_err(ort::Error::new)
    }
}
