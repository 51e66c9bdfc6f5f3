//! The operators in f32 on the CPU, as their definitions have them, to test the graphs that use them.

use ort::operator::{ComputeContext, Kernel, OperatorDomain};
use ort::value::TensorElementType;

use super::operators::TypedOperator;
use crate::graph::{OWN_DOMAIN, OwnOperator};

/// All operators, for a session on the CPU.
pub(in crate::engine) fn reference_operators() -> ort::Result<OperatorDomain> {
    let mut domain = OperatorDomain::new(OWN_DOMAIN)?;
    for operator in OwnOperator::ALL {
        let (data_type, kernel) = (TensorElementType::Float32, Reference(operator));
        domain = domain.add(TypedOperator { operator, data_type, provider: None, kernel })?;
    }
    Ok(domain)
}

#[derive(Clone, Copy)]
struct Reference(OwnOperator);

impl Kernel for Reference {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let missing = || ort::Error::new("an operand is missing");
        let inputs = (0..self.0.operands())
            .map(|index| context.input(index)?.ok_or_else(missing))
            .collect::<ort::Result<Vec<_>>>()?;
        let tensors = inputs.iter().map(|input| input.try_extract_tensor::<f32>()).collect::<ort::Result<Vec<_>>>()?;
        let (shape, x) = tensors[0];
        let other = |at: usize| tensors[1].1[at % tensors[1].1.len()];
        let mut output = context.output(0, shape.to_vec())?.ok_or_else(missing)?;
        let (_, result) = output.try_extract_tensor_mut::<f32>()?;
        for (at, value) in result.iter_mut().enumerate() {
            *value = match self.0 {
                OwnOperator::AddBias => x[at] + other(at),
                OwnOperator::BiasGelu => gelu_erf(x[at] + other(at)),
                OwnOperator::GatedGelu => gelu_tanh(x[at]) * other(at),
                OwnOperator::GatedSilu => x[at] / (1.0 + (-x[at]).exp()) * other(at),
                OwnOperator::Rotate => {
                    let (sequence, width) = (shape[1] as usize, shape[2] as usize);
                    let half = tensors[1].0[1] as usize;
                    let (position, place) = (at / width % sequence, at % (2 * half));
                    let angle = position * half + place % half;
                    let (cosine, sine) = (tensors[1].1[angle], tensors[2].1[angle]);
                    if place < half {
                        x[at] * cosine - x[at + half] * sine
                    } else {
                        x[at] * cosine + x[at - half] * sine
                    }
                }
            };
        }
        Ok(())
    }
}

fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x.powi(3))).tanh())
}

/// By the series of the error function: `erf(x) = 2 / sqrt(pi) * sum((-1)^n x^(2 n + 1) / (n! (2 n + 1)))`.
fn gelu_erf(x: f32) -> f32 {
    let scaled = f64::from(x) / std::f64::consts::SQRT_2;
    let erf = if scaled.abs() > 4.0 {
        scaled.signum()
    } else {
        let (mut power, mut sum) = (scaled, scaled);
        for n in 1..100 {
            power *= -scaled * scaled / f64::from(n);
            sum += power / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    };
    (0.5 * f64::from(x) * (1.0 + erf)) as f32
}
