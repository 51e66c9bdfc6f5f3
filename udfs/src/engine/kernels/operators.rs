//! The operators as ONNX Runtime sees them, and those of a GPU.

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::{DynTensorValueType, TensorElementType};

use super::counts::counts;
use super::driver::{Driver, Handle};
use super::ptx::{Kernels, TYPES};
use crate::graph::{OWN_DOMAIN, OwnOperator};

/// An operator on tensors of one type, and what computes it.
pub(super) struct TypedOperator<K> {
    pub(super) operator: OwnOperator,
    pub(super) data_type: TensorElementType,
    /// The execution provider that it is for; `None` for the CPU's.
    pub(super) provider: Option<&'static str>,
    pub(super) kernel: K,
}

impl<K: Kernel + Copy + Sync + 'static> Operator for TypedOperator<K> {
    type Kernel<'attr> = K;

    fn name(&self) -> &str {
        self.operator.name()
    }

    fn execution_provider_type(&self) -> Option<&str> {
        self.provider
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        (0..self.operator.operands()).map(|_| OperatorInput::required(self.data_type)).collect::<Vec<_>>()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(self.data_type)]
    }

    fn create_kernel(&self, _context: &KernelContext<'_>) -> ort::Result<K> {
        Ok(self.kernel)
    }
}

/// All operators, for a session on a GPU.
///
/// # Errors
/// Why the kernels cannot be loaded, or what ONNX Runtime says.
pub(in crate::engine) fn cuda_operators() -> ort::Result<OperatorDomain> {
    let kernels = Kernels::get().map_err(ort::Error::new)?;
    let mut domain = OperatorDomain::new(OWN_DOMAIN)?;
    for operator in OwnOperator::ALL {
        for (data_type, _) in TYPES {
            let handle = kernels.kernel(operator, data_type);
            let handle = handle.ok_or_else(|| ort::Error::new(format!("{} has no kernel", operator.name())))?;
            let kernel = CudaKernel { operator, data_type, driver: kernels.driver, handle };
            let provider = Some("CUDAExecutionProvider");
            domain = domain.add(TypedOperator { operator, data_type, provider, kernel })?;
        }
    }
    Ok(domain)
}

/// An operator's kernel for tensors of one type.
#[derive(Clone, Copy)]
struct CudaKernel {
    operator: OwnOperator,
    data_type: TensorElementType,
    driver: &'static Driver,
    handle: Handle,
}

impl Kernel for CudaKernel {
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
        // Without one, the launch would not wait for what comes before it.
        let stream = context.stream()?.ok_or_else(|| ort::Error::new("ONNX Runtime gives no CUDA stream"))?;
        // SAFETY: the kernel is that of the operator, whose operands `counts` has checked. The stream is that of the
        // session's run. The tensors are on its GPU, since the operator is the CUDA provider's and asks for no other
        // memory; their sizes follow from their shapes, like the counts; and ONNX Runtime orders what else reads and
        // writes them on the same stream.
        unsafe { self.driver.launch(self.handle, &mut pointers, &mut counts, stream.as_ptr().cast()) }
            .map_err(ort::Error::new)
    }
}
