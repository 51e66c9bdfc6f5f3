//! Collects nodes and initializers into an ONNX graph.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;

use super::own_operators::{OWN_DOMAIN, OWN_OPSET, OwnOperator, WIDTH_MULTIPLE};
use super::proto::{
    Attribute, AttributeType, DataLocation, DataType, Dimension, DimensionValue, Graph, ModelProto, Node,
    OperatorSetId, StringStringEntry, TensorProto, TensorShape, TensorType, Type, ValueInfo,
};
use crate::checkpoint::{DType, Tensor};
use crate::error::{Error, Result};
use crate::options::Precision;

/// ONNX operator set: the first whose `Attention` takes lengths.
const OPSET: i64 = 24;
/// ONNX Runtime's own operators (`com.microsoft`).
const MS_OPSET: i64 = 1;
/// IR version of opset 23, which opset 24 accepts too.
const IR_VERSION: i64 = 11;

/// A tensor inside the graph under construction, known by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value(String);

impl Value {
    /// Stands for an optional operand that is omitted.
    pub(crate) fn none() -> Self {
        Self(String::new())
    }
}

/// Value of an operator's attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attr {
    Int(i64),
    Float(f32),
}

/// What runs a graph. Some GPU kernels take other operands than the CPU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Target {
    #[default]
    Cpu,
    /// A GPU, with operators that ONNX Runtime has.
    Gpu,
    /// A GPU on which this crate runs the graph, with operators of its own.
    GpuWithKernels,
}

impl Target {
    pub(crate) fn is_gpu(self) -> bool {
        self != Self::Cpu
    }
}

/// Builds one graph. Values are named after the node that computes them, nodes after their operator. Asking again for
/// the same operator on the same operands returns the same value, so a layer can request what it needs where it needs
/// it.
#[derive(Debug, Default)]
pub(crate) struct GraphBuilder {
    precision: Precision,
    target: Target,
    nodes: Vec<Node>,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    /// Small constants, by name.
    constants: BTreeMap<String, TensorProto>,
    /// Weights, by the name of their tensor.
    weights: BTreeMap<String, Tensor>,
    /// Weights used in another form than the stored one, by their own name.
    converted: BTreeMap<String, (Tensor, Precision)>,
    /// The output names of each distinct computation.
    computed: HashMap<String, Vec<String>>,
}

impl GraphBuilder {
    /// A graph whose layers compute in this precision.
    pub(crate) fn new(precision: Precision, target: Target) -> Self {
        Self { precision, target, ..Self::default() }
    }

    pub(crate) fn on_gpu(&self) -> bool {
        self.target.is_gpu()
    }

    /// Whether this crate's operators may work on rows of `width` elements; for [`OwnOperator::Rotate`] these are half
    /// a head.
    pub(super) fn takes_own_operators(&self, width: usize) -> bool {
        self.target == Target::GpuWithKernels && width.is_multiple_of(WIDTH_MULTIPLE)
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The type of activations.
    fn activation_type(&self) -> DataType {
        data_type(self.precision.activations())
    }

    /// Declares a graph input of the given symbolic dimensions.
    pub(crate) fn input(&mut self, name: &str, data_type: DataType, dims: &[&str]) -> Value {
        self.inputs.push(value_info(name, data_type, dims.iter().map(|d| DimensionValue::Param((*d).to_owned()))));
        Value(name.to_owned())
    }

    /// Declares `value` as the f32 graph output `name` with shape [batch, columns].
    pub(crate) fn output(&mut self, name: &str, value: &Value, columns: usize) {
        self.nodes.push(Node {
            input: vec![value.0.clone()],
            output: vec![name.to_owned()],
            name: format!("output/{name}"),
            op_type: "Identity".to_owned(),
            ..Node::default()
        });
        let dims = [DimensionValue::Param("batch".to_owned()), DimensionValue::Value(columns as i64)];
        self.outputs.push(value_info(name, DataType::Float, dims));
    }

    /// A standard ONNX operator with one output.
    pub(crate) fn op(&mut self, op_type: &str, inputs: &[&Value], attributes: &[(&str, Attr)]) -> Value {
        let [value] = self.node("", op_type, inputs, attributes, [0]);
        value
    }

    /// One of ONNX Runtime's own operators. Returns its first output.
    pub(crate) fn ms_op(&mut self, op_type: &str, inputs: &[&Value], attributes: &[(&str, Attr)]) -> Value {
        let [value] = self.node("com.microsoft", op_type, inputs, attributes, [0]);
        value
    }

    /// One of ONNX Runtime's own operators. Returns its outputs at `positions` (ascending).
    pub(crate) fn ms_op_outputs<const N: usize>(
        &mut self,
        op_type: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attr)],
        positions: [usize; N],
    ) -> [Value; N] {
        self.node("com.microsoft", op_type, inputs, attributes, positions)
    }

    /// One of this crate's operators.
    pub(super) fn own_op(&mut self, operator: OwnOperator, inputs: &[&Value]) -> Value {
        let [value] = self.node(OWN_DOMAIN, operator.name(), inputs, &[], [0]);
        value
    }

    fn node<const N: usize>(
        &mut self,
        domain: &str,
        op_type: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attr)],
        positions: [usize; N],
    ) -> [Value; N] {
        let operands: Vec<&str> = inputs.iter().map(|value| value.0.as_str()).collect();
        let key = format!("{domain}.{op_type}{operands:?}{attributes:?}{positions:?}");
        let outputs = if let Some(outputs) = self.computed.get(&key) {
            outputs.clone()
        } else {
            let name = format!("{op_type}_{}", self.nodes.len());
            let last = positions.iter().max().copied().unwrap_or(0);
            let outputs: Vec<String> = (0..=last)
                .map(|position| match position {
                    0 if positions.contains(&0) => name.clone(),
                    _ if positions.contains(&position) => format!("{name}:{position}"),
                    _ => String::new(),
                })
                .collect();
            self.nodes.push(Node {
                input: operands.into_iter().map(str::to_owned).collect(),
                output: outputs.clone(),
                name,
                op_type: op_type.to_owned(),
                attribute: attributes.iter().map(|(name, value)| attribute(name, *value)).collect(),
                domain: domain.to_owned(),
            });
            self.computed.insert(key, outputs.clone());
            outputs
        };
        positions.map(|position| Value(outputs[position].clone()))
    }

    /// The weights of `tensor` in the type of activations. In a 16-bit graph, a matrix stored in another type becomes
    /// one of [`OnnxGraph::converted`], and so does one with an update in any graph. Other weights are cast in the
    /// graph: ONNX Runtime folds the cast while it loads, so no converted copy is written.
    pub(crate) fn weight(&mut self, tensor: &Tensor) -> Value {
        let half = self.precision.half();
        let is_other_half = half.is_some_and(|half| tensor.dtype != half) && tensor.shape.len() > 1;
        if tensor.update.is_some() || is_other_half {
            return self.convert(tensor, if half.is_some() { self.precision } else { Precision::Fp32 });
        }
        let stored = self.stored(tensor);
        self.cast_from(&stored, data_type(tensor.dtype), self.activation_type())
    }

    /// The weights of `tensor` as f32, whatever the type of activations.
    pub(crate) fn weight_f32(&mut self, tensor: &Tensor) -> Value {
        if tensor.update.is_some() {
            return self.convert(tensor, Precision::Fp32);
        }
        let stored = self.stored(tensor);
        self.cast_from(&stored, data_type(tensor.dtype), DataType::Float)
    }

    /// Rows of a table in the type of activations. An f32 graph casts only the rows of a 16-bit table, not the table,
    /// unless an adapter updates it.
    pub(crate) fn rows(&mut self, table: &Tensor, ids: &Value) -> Value {
        if self.precision.half().is_some() || table.update.is_some() {
            let table = self.weight(table);
            return self.op("Gather", &[&table, ids], &[]);
        }
        let stored = self.stored(table);
        let rows = self.op("Gather", &[&stored, ids], &[]);
        self.cast_from(&rows, data_type(table.dtype), DataType::Float)
    }

    /// The weights of `tensor` in their stored type.
    fn stored(&mut self, tensor: &Tensor) -> Value {
        self.weights.entry(tensor.name.clone()).or_insert_with(|| tensor.clone());
        Value(tensor.name.clone())
    }

    /// A matrix `[out, in]` in 8 bits: its values, i8 `[in, out]`, and its scales, f32 `[out]`.
    pub(crate) fn quantized(&mut self, tensor: &Tensor) -> (Value, Value) {
        self.convert(tensor, Precision::Int8);
        let QuantizedNames { values, scales } = QuantizedNames::of(tensor);
        (Value(values), Value(scales))
    }

    /// A matrix in another form than the stored one. Returns its value, unless it is quantized.
    fn convert(&mut self, tensor: &Tensor, precision: Precision) -> Value {
        let name = converted_name(tensor, precision);
        self.converted.entry(name.clone()).or_insert_with(|| (tensor.clone(), precision));
        Value(name)
    }

    /// Casts an f32 value to the type of activations.
    pub(crate) fn cast_to_activation(&mut self, value: &Value) -> Value {
        self.cast_from(value, DataType::Float, self.activation_type())
    }

    /// Casts a value of the type of activations to f32.
    pub(crate) fn cast_to_f32(&mut self, value: &Value) -> Value {
        self.cast_from(value, self.activation_type(), DataType::Float)
    }

    fn cast_from(&mut self, value: &Value, from: DataType, to: DataType) -> Value {
        if from == to { value.clone() } else { self.cast(value, to) }
    }

    pub(crate) fn cast(&mut self, value: &Value, to: DataType) -> Value {
        self.op("Cast", &[value], &[("to", Attr::Int(i64::from(to as i32)))])
    }

    /// A constant vector of integers (shapes, axes, indices).
    pub(crate) fn ints(&mut self, values: &[i64]) -> Value {
        let name = format!("ints{values:?}");
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, DataType::Int64, &[values.len()], bytes)
    }

    /// A constant integer scalar.
    pub(crate) fn int(&mut self, value: i64) -> Value {
        self.constant(format!("int({value})"), DataType::Int64, &[], value.to_le_bytes().to_vec())
    }

    /// A constant f32 scalar.
    pub(crate) fn float(&mut self, value: f32) -> Value {
        self.constant(format!("float({value})"), DataType::Float, &[], value.to_le_bytes().to_vec())
    }

    /// A constant f32 vector under a name of its own.
    pub(crate) fn floats(&mut self, name: &str, values: &[f32]) -> Value {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name.to_owned(), DataType::Float, &[values.len()], bytes)
    }

    fn constant(&mut self, name: String, data_type: DataType, dims: &[usize], raw_data: Vec<u8>) -> Value {
        self.constants.entry(name.clone()).or_insert_with(|| TensorProto {
            dims: dims.iter().map(|n| *n as i64).collect(),
            data_type: data_type as i32,
            name: name.clone(),
            raw_data: Some(raw_data),
            ..TensorProto::default()
        });
        Value(name)
    }

    /// The finished graph.
    pub(crate) fn build(self, name: &str) -> OnnxGraph {
        OnnxGraph {
            graph: Graph {
                node: self.nodes,
                name: name.to_owned(),
                initializer: self.constants.into_values().collect(),
                input: self.inputs,
                output: self.outputs,
            },
            weights: self.weights.into_values().collect(),
            precision: self.precision,
            converted: self.converted.into_values().collect(),
            held: None,
        }
    }
}

/// A graph that refers to its weights by file, where the checkpoint put them.
#[derive(Debug, Clone)]
pub(crate) struct OnnxGraph {
    graph: Graph,
    weights: Vec<Tensor>,
    precision: Precision,
    /// Weights that the graph needs in another form, as the checkpoint stores them.
    converted: Vec<(Tensor, Precision)>,
    /// Open while the graph may still be loaded, which keeps its converted weights from being removed.
    held: Option<Arc<File>>,
}

/// The graph's names for the parts of a quantized weight.
pub(crate) struct QuantizedNames {
    pub(crate) values: String,
    pub(crate) scales: String,
}

impl QuantizedNames {
    pub(crate) fn of(tensor: &Tensor) -> Self {
        Self { values: format!("{}/int8", tensor.name), scales: format!("{}/scale", tensor.name) }
    }
}

/// A graph's name for a matrix that the checkpoint stores in another form, unless it is quantized.
pub(crate) fn converted_name(tensor: &Tensor, precision: Precision) -> String {
    format!("{}/{precision}", tensor.name)
}

/// Where a weight's bytes are, in the terms of ONNX external data.
pub(crate) struct ExternalData {
    /// Relative to the model's folder.
    pub(crate) location: String,
    pub(crate) offset_bytes: u64,
}

impl OnnxGraph {
    /// The precision of the layers.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether operators of this crate are among the nodes.
    pub(crate) fn has_own_operators(&self) -> bool {
        self.own_operators().next().is_some()
    }

    /// The names of this crate's operators among the nodes, once for each node.
    pub(crate) fn own_operators(&self) -> impl Iterator<Item = &str> {
        self.graph.node.iter().filter(|node| node.domain == OWN_DOMAIN).map(|node| node.op_type.as_str())
    }

    /// Bytes of the weights in the type of activations, which is theirs on a GPU.
    pub(crate) fn weight_bytes(&self) -> u64 {
        let elements: u64 = self.weights.iter().map(|weight| weight.elements() as u64).sum();
        elements * self.precision.activations().bytes() as u64
    }

    /// The matrices that the graph needs in another form than the stored one, and in which precision: the graph's, or
    /// fp32 for those that an adapter updates and that the graph keeps in f32.
    pub(crate) fn converted(&self) -> &[(Tensor, Precision)] {
        &self.converted
    }

    /// Adds the converted matrices to the graph's weights. They are in `file`, which stays open for the life of the
    /// graph.
    pub(crate) fn with_converted(mut self, parts: Vec<Tensor>, file: File) -> Self {
        self.converted.clear();
        self.weights.extend(parts);
        self.held = Some(Arc::new(file));
        self
    }

    /// Serializes the model with references to the weights' own files. Also returns the folder that their paths are
    /// relative to.
    pub(crate) fn in_place(&self) -> Result<(Vec<u8>, PathBuf)> {
        let files: BTreeSet<&Path> = self.weights.iter().map(|tensor| tensor.file.as_path()).collect();
        let folder = common_folder(files.iter().copied()).ok_or_else(|| {
            Error::model(&self.graph.name, "its weights have no common folder; keep all shards on one file system")
        })?;
        let model = self.model(|tensor| {
            let relative = tensor.file.strip_prefix(&folder).unwrap_or(&tensor.file);
            let location = relative.to_str().ok_or_else(|| {
                Error::checkpoint(
                    tensor.file.as_path(),
                    "ONNX Runtime needs a path in UTF-8; rename the file or its folder",
                )
            })?;
            Ok(ExternalData { location: location.to_owned(), offset_bytes: tensor.offset_bytes })
        })?;
        Ok((model, folder))
    }

    /// Serializes the model with every weight where `place` puts it.
    pub(crate) fn model(&self, mut place: impl FnMut(&Tensor) -> Result<ExternalData>) -> Result<Vec<u8>> {
        let mut graph = self.graph.clone();
        for tensor in &self.weights {
            let data = place(tensor)?;
            graph.initializer.push(TensorProto {
                dims: tensor.shape.iter().map(|n| *n as i64).collect(),
                data_type: data_type(tensor.dtype) as i32,
                name: tensor.name.clone(),
                raw_data: None,
                external_data: [
                    ("location", data.location),
                    ("offset", data.offset_bytes.to_string()),
                    ("length", tensor.bytes().to_string()),
                ]
                .map(|(key, value)| StringStringEntry { key: key.to_owned(), value })
                .to_vec(),
                data_location: DataLocation::External as i32,
            });
        }
        let opset = |domain: &str, version| OperatorSetId { domain: domain.to_owned(), version };
        let mut opset_import = vec![opset("", OPSET), opset("com.microsoft", MS_OPSET)];
        if self.has_own_operators() {
            opset_import.push(opset(OWN_DOMAIN, OWN_OPSET));
        }
        Ok(ModelProto {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(graph),
            opset_import,
        }
        .encode_to_vec())
    }
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I8 => DataType::Int8,
    }
}

fn attribute(name: &str, value: Attr) -> Attribute {
    let attribute = Attribute { name: name.to_owned(), ..Attribute::default() };
    match value {
        Attr::Int(i) => Attribute { i: Some(i), r#type: AttributeType::Int as i32, ..attribute },
        Attr::Float(f) => Attribute { f: Some(f), r#type: AttributeType::Float as i32, ..attribute },
    }
}

fn value_info(name: &str, data_type: DataType, dims: impl IntoIterator<Item = DimensionValue>) -> ValueInfo {
    let dim = dims.into_iter().map(|value| Dimension { value: Some(value) }).collect();
    ValueInfo {
        name: name.to_owned(),
        r#type: Some(Type {
            tensor_type: Some(TensorType { elem_type: data_type as i32, shape: Some(TensorShape { dim }) }),
        }),
    }
}

/// The deepest folder that holds all `files`; `None` if they share none or there are none.
fn common_folder<'a>(files: impl IntoIterator<Item = &'a Path>) -> Option<PathBuf> {
    let mut folders = files.into_iter().filter_map(Path::parent);
    let first = folders.next()?.to_owned();
    let common = folders.fold(first, |common, folder| {
        common.components().zip(folder.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    });
    Some(common).filter(|folder| folder.has_root())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_folder_of_hub_blobs_and_shards() {
        let folder = |files: &[&str]| common_folder(files.iter().map(Path::new));
        assert_eq!(folder(&["/m/a.safetensors"]), Some("/m".into()));
        assert_eq!(folder(&["/m/blobs/x", "/m/blobs/y"]), Some("/m/blobs".into()));
        assert_eq!(folder(&["/m/a/x", "/m/b/y"]), Some("/m".into()));
        assert_eq!(folder(&["/a/x", "/b/y"]), Some("/".into()));
        assert_eq!(folder(&[]), None);
    }

    #[test]
    fn constants_are_shared_by_value() {
        let mut graph = GraphBuilder::default();
        assert_eq!(graph.ints(&[1, 2]), graph.ints(&[1, 2]));
        assert_ne!(graph.int(1), graph.ints(&[1]));
        assert_eq!(graph.constants.len(), 3);
    }
}
