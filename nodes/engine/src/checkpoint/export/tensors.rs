//! A safetensors file, written tensor after tensor: the numbers are converted in small blocks on their way, and nothing is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::{bf16, f16};

use super::super::Precision;
use super::Progress;
use crate::files::{safetensors_header, write_whole_by};
use crate::{CancelToken, Error, Result};

/// Numbers that are converted at once.
const BLOCK: usize = 1 << 14;

/// A tensor of a file that is to be written.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// Its numbers, one part after the other. Views are made whole only when it is their turn.
    pub(super) parts: Vec<Tensor>,
}

impl Entry {
    pub(super) fn new(name: impl Into<String>, tensor: &Tensor) -> Self {
        Self { name: name.into(), shape: tensor.dims().to_vec(), parts: vec![tensor.clone()] }
    }

    /// The type of its numbers in the file.
    fn precision(&self, chosen: Option<Precision>) -> Result<Precision> {
        let kept = self.parts.first().map_or(DType::F32, Tensor::dtype);
        let same = || Precision::ALL.into_iter().map(|(_, precision)| precision).find(|p| p.dtype() == kept);
        chosen.or_else(same).ok_or_else(|| {
            Error::incompatible(format!("tensor {} is kept in {kept:?}, which is not written", self.name))
        })
    }

    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Write a file of all `entries` with `metadata`, in the type of their numbers or the `chosen` one.
///
/// # Errors
/// See [`Export::write`](super::Export::write); nothing is left of the file then.
pub(super) fn write(
    path: &Path,
    entries: Vec<Entry>,
    metadata: &BTreeMap<String, String>,
    chosen: Option<Precision>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let typed = |entry: Entry| Ok((entry.precision(chosen)?, entry));
    let mut entries = entries.into_iter().map(typed).collect::<Result<Vec<_>>>()?;
    // The widest first, as the format's own writer has it: then each lies at a multiple of its width.
    entries.sort_by(|(a, x), (b, y)| (width(*b), &x.name).cmp(&(width(*a), &y.name)));
    let header = safetensors_header(
        metadata,
        entries.iter().map(|(precision, entry)| {
            let size = width(*precision) * entry.count();
            (entry.name.as_str(), type_name(*precision), entry.shape.as_slice(), size)
        }),
    );
    write_whole_by(path, |file| {
        let failed = |error: io::Error| Error::io(path, &error);
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&header).map_err(failed)?;
        for (precision, entry) in &entries {
            let mut writer = Numbers { out: &mut out, precision: *precision, path, cancel: progress.cancel };
            entry.parts.iter().try_for_each(|part| writer.write(&entry.name, part))?;
            progress.step()?;
        }
        out.flush().map_err(failed)
    })
}

fn width(precision: Precision) -> usize {
    precision.dtype().size_in_bytes()
}

/// What the format calls a type.
fn type_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "F32",
        Precision::Bf16 => "BF16",
        Precision::F16 => "F16",
    }
}

/// Numbers on their way into a file.
struct Numbers<'a, 'f> {
    out: &'a mut BufWriter<&'f mut File>,
    precision: Precision,
    path: &'a Path,
    cancel: &'a CancelToken,
}

impl Numbers<'_, '_> {
    fn write(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        let here = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
        match &*storage {
            Storage::Cpu(CpuStorage::F32(values)) => self.blocks(name, &values[here], |x| x),
            Storage::Cpu(CpuStorage::F16(values)) => self.blocks(name, &values[here], f16::to_f32),
            Storage::Cpu(CpuStorage::BF16(values)) => self.blocks(name, &values[here], bf16::to_f32),
            _ => Err(Error::incompatible(format!(
                "tensor {name} is kept in {:?}, which is not written",
                tensor.dtype()
            ))),
        }
    }

    fn blocks<T: Copy>(&mut self, name: &str, values: &[T], wide: fn(T) -> f32) -> Result<()> {
        let mut bytes = Vec::with_capacity(BLOCK * width(self.precision));
        for block in values.chunks(BLOCK) {
            self.cancel.check()?;
            bytes.clear();
            let values = block.iter().map(|x| wide(*x));
            let lost = match self.precision {
                Precision::F32 => convert(values, &mut bytes, f32::to_le_bytes, f32::is_finite),
                Precision::F16 => convert(
                    values,
                    &mut bytes,
                    |x| f16::from_f32(x).to_le_bytes(),
                    |x| f16::from_f32(x).is_finite(),
                ),
                Precision::Bf16 => convert(
                    values,
                    &mut bytes,
                    |x| bf16::from_f32(x).to_le_bytes(),
                    |x| bf16::from_f32(x).is_finite(),
                ),
            };
            if let Some(value) = lost {
                return Err(self.no_such_number(name, value));
            }
            self.out.write_all(&bytes).map_err(|error| Error::io(self.path, &error))?;
        }
        Ok(())
    }

    fn no_such_number(&self, name: &str, value: f32) -> Error {
        if !value.is_finite() {
            return Error::incompatible(format!("tensor {name} holds {value}, which is not a finite number"))
                .help("load the checkpoint in f32 or bf16: in f16 its numbers may have overflowed");
        }
        let precision = self.precision.name();
        Error::incompatible(format!("tensor {name} holds {value:e}, which {precision} does not have"))
            .help("choose the precision bf16 or f32")
    }
}

/// The bytes of `values`; gives back the first of them that is none of the finite numbers of the type.
fn convert<const N: usize>(
    values: impl Iterator<Item = f32>,
    bytes: &mut Vec<u8>,
    encode: impl Fn(f32) -> [u8; N],
    has: impl Fn(f32) -> bool,
) -> Option<f32> {
    let mut lost = None;
    for value in values {
        if !has(value) && lost.is_none() {
            lost = Some(value);
        }
        bytes.extend_from_slice(&encode(value));
    }
    lost
}
