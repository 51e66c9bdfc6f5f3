//! Where a tensor's values are.

use std::path::PathBuf;
use std::sync::Arc;

/// Element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DType {
    F32,
    F16,
    BF16,
    /// For quantized weights only; checkpoints have none.
    I8,
}

impl DType {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::I8 => 1,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I8 => "I8",
        }
    }
}

/// Where a tensor is: a byte range of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Resolved path, without symbolic links.
    pub(crate) file: Arc<PathBuf>,
    /// From the start of the file.
    pub(crate) offset_bytes: u64,
    /// What an adapter adds to the stored values. They are merged before the graph uses them.
    pub(crate) update: Option<Arc<LowRank>>,
}

/// The update of a matrix by a LoRA adapter: `weight + scaling * up · down`, each row scaled to its magnitude if there
/// are any.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LowRank {
    /// `[rows, rank]`
    pub(crate) up: Factor,
    /// `[rank, columns]`
    pub(crate) down: Factor,
    pub(crate) scaling: f32,
    /// The length of each row, `[rows]`: DoRA.
    pub(crate) magnitudes: Option<Tensor>,
    /// The row of `up`, and of the magnitudes, that belongs to the first row of the tensor.
    pub(crate) first_row: usize,
}

/// A matrix of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Factor {
    pub(crate) tensor: Tensor,
    /// Whether it is stored the other way round.
    pub(crate) transposed: bool,
}

impl Factor {
    /// The shape in use, not the stored one.
    pub(crate) fn shape(&self) -> [usize; 2] {
        match (self.tensor.shape.as_slice(), self.transposed) {
            ([rows, columns], false) | ([columns, rows], true) => [*rows, *columns],
            _ => [0, 0],
        }
    }
}

impl Tensor {
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.elements() as u64 * self.dtype.bytes() as u64
    }

    /// Row `index` of a matrix, as a vector.
    pub(crate) fn row(&self, index: usize) -> Self {
        let row = self.row_matrix(index);
        Self { shape: vec![row.elements()], ..row }
    }

    /// Row `index` of a matrix, as a matrix of one row: its bytes are consecutive.
    pub(crate) fn row_matrix(&self, index: usize) -> Self {
        debug_assert!(self.shape.len() == 2 && index < self.shape[0], "row {index} of {:?}", self.shape);
        let columns = self.shape[1];
        let of_row = |update: &LowRank| Arc::new(LowRank { first_row: update.first_row + index, ..update.clone() });
        Self {
            name: format!("{}[{index}]", self.name),
            shape: vec![1, columns],
            offset_bytes: self.offset_bytes + (index * columns * self.dtype.bytes()) as u64,
            update: self.update.as_deref().map(of_row),
            ..self.clone()
        }
    }
}
